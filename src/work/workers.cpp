#include "rometrace/work/workers.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <utility>

namespace rometrace {
namespace {

thread_local bool is_within_a_piece = false;

// Operations of this thread run on it alone for as long as this lives.
class Alone {
 public:
  Alone() : threads_(at::get_num_threads()) {
    if (threads_ != 1) at::set_num_threads(1);
    is_within_a_piece = true;
  }
  ~Alone() {
    is_within_a_piece = false;
    if (threads_ != 1) at::set_num_threads(threads_);
  }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;

 private:
  int threads_;
};

}  // namespace

Workers::Workers(int count) {
  TORCH_INTERNAL_ASSERT(count >= 1, "work needs a worker");
  const auto threads = at::get_num_threads();
  for (int i = 1; i < count; ++i) threads_.emplace_back([this] { work(); });
  at::set_num_threads(threads);  // the number that threads to come begin with was changed by those
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

void Workers::share(std::int64_t pieces, const std::function<void(std::int64_t)>& piece) {
  if (is_within_a_piece || threads_.empty() || pieces < 2) {
    for (std::int64_t i = 0; i < pieces; ++i) piece(i);
    return;
  }
  const Alone alone;
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
  const Alone alone;
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
