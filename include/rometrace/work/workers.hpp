#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rometrace {

/// Threads that share out large pieces of work, each running libtorch's operations on itself alone. The thread that
/// shares is one of them.
///
/// A pool of our own, since this is all that is asked of one: pieces of one call from one counter, no queue, no tasks
/// that wait for others. libtorch's own pool is serial here (at::parallel_for asks for a compiler's OpenMP, with which
/// nothing here is compiled), and no tensor operation may be in its bodies.
class Workers {
 public:
  /// Starts count - 1 threads; `count` is at least 1.
  explicit Workers(int count);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// For as long as it lives, libtorch's operations run on the calling thread alone, where there are workers to share
  /// with: what lies between pieces is too small for threads of libtorch's own, which spin while they wait.
  class Alone {
   public:
    explicit Alone(const Workers* workers);
    ~Alone();
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;

   private:
    int threads_ = 0;  // to go back to, or 0
  };

  /// Whether the calling thread is within a piece of one.
  static bool is_shared();

  /// Which of the workers the calling thread is, from 0, which is the thread that shares, to count() - 1. Always the
  /// same of one thread.
  static int number();

  int count() const { return static_cast<int>(threads_.size()) + 1; }

  /// Calls piece(0) .. piece(pieces - 1), each once, begun in this order by whoever is free, without autograd; returns
  /// when all are done. Of what they throw, what the first to throw did is thrown here; pieces that were not begun by
  /// then never are. Within a piece it is a plain loop. One caller at a time.
  void share(std::int64_t pieces, const std::function<void(std::int64_t)>& piece);

 private:
  void work();       // of a thread
  void take_some();  // pieces of the work at hand

  std::mutex mutex_;
  std::condition_variable begins_, ends_;
  const std::function<void(std::int64_t)>* piece_ = nullptr;
  std::int64_t pieces_ = 0, next_ = 0;
  std::uint64_t turn_ = 0;  // of share()
  std::size_t busy_ = 0;    // threads that have not finished the turn
  bool over_ = false;
  std::exception_ptr thrown_;
  std::vector<std::jthread> threads_;
};

/// The same where there may be no workers: a plain loop then.
void share(Workers* workers, std::int64_t pieces, const std::function<void(std::int64_t)>& piece);

}  // namespace rometrace
