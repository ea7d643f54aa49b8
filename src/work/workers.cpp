#include "rometrace/work/workers.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <latch>
#include <utility>

namespace rometrace {
namespace {

thread_local bool is_within_a_piece = false;
thread_local int number_of_thread = 0;

// Marks the pieces of a share().
class WithinPieces {
 public:
  WithinPieces() { is_within_a_piece = true; }
  ~WithinPieces() { is_within_a_piece = false; }
  WithinPieces(const WithinPieces&) = delete;
  WithinPieces& operator=(const WithinPieces&) = delete;
};

}  // namespace

Workers::Alone::Alone(const Workers* workers) {
  const auto threads = at::get_num_threads();
  if (workers == nullptr || workers->count() == 1 || threads == 1) return;
  at::set_num_threads(1);
  threads_ = threads;
}

Workers::Alone::~Alone() {
  if (threads_ > 0) at::set_num_threads(threads_);
}

Workers::Workers(int count) {
  TORCH_INTERNAL_ASSERT(count >= 1, "work needs a worker");
  const auto threads = at::get_num_threads();
  std::latch begun(count);
  for (int i = 1; i < count; ++i) {
    threads_.emplace_back([this, &begun, i] {
      number_of_thread = i;
      at::set_num_threads(1);
      begun.count_down();
      work();
    });
  }
  begun.arrive_and_wait();
  at::set_num_threads(threads);  // what those set is also what threads to come begin with
}

Workers::~Workers() {
  {
    const std::scoped_lock lock(mutex_);
    over_ = true;
  }
  begins_.notify_all();
}

bool Workers::is_shared() {
  return is_within_a_piece;
}

int Workers::number() {
  return number_of_thread;
}

void Workers::share(std::int64_t pieces, const std::function<void(std::int64_t)>& piece) {
  if (is_within_a_piece || threads_.empty() || pieces < 2) {
    for (std::int64_t i = 0; i < pieces; ++i) piece(i);
    return;
  }
  const Alone alone(this);
  const WithinPieces within;
  {
    const std::scoped_lock lock(mutex_);
    piece_ = &piece;
    pieces_ = pieces;
    next_ = 0;
    thrown_ = nullptr;
    busy_ = threads_.size();
    ++turn_;
  }
  begins_.notify_all();
  take_some();
  std::unique_lock lock(mutex_);
  ends_.wait(lock, [this] { return busy_ == 0; });
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

void Workers::take_some() {
  while (true) {
    std::int64_t mine = 0;
    {
      const std::scoped_lock lock(mutex_);
      if (next_ >= pieces_) return;
      mine = next_++;
    }
    try {
      (*piece_)(mine);
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!thrown_) thrown_ = std::current_exception();
      next_ = pieces_;
    }
  }
}

void Workers::work() {
  const WithinPieces within;
  const at::NoGradGuard no_grad;
  for (std::uint64_t done = 0;;) {
    {
      std::unique_lock lock(mutex_);
      begins_.wait(lock, [&] { return over_ || turn_ != done; });
      if (over_) return;
      done = turn_;
    }
    take_some();
    const std::scoped_lock lock(mutex_);
    if (--busy_ == 0) ends_.notify_one();
  }
}

void share(Workers* workers, std::int64_t pieces, const std::function<void(std::int64_t)>& piece) {
  if (workers != nullptr) return workers->share(pieces, piece);
  for (std::int64_t i = 0; i < pieces; ++i) piece(i);
}

}  // namespace rometrace
