#include "rometrace/work/workers.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <latch>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "rometrace/error.hpp"

namespace rometrace::workers_test {
namespace {

// Pieces that begin only when as many threads as there are workers have come.
std::set<std::thread::id> threads_of(Workers& workers) {
  std::latch all(workers.count());
  std::mutex mutex;
  std::set<std::thread::id> threads;
  workers.share(workers.count(), [&](std::int64_t) {
    all.arrive_and_wait();
    const std::scoped_lock lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return threads;
}

TEST_CASE("as many threads work as there are workers, the caller among them, the same ones each time") {
  for (const int count : {1, 2, 5}) {
    Workers workers(count);
    CHECK(workers.count() == count);
    const auto threads = threads_of(workers);
    CHECK(threads.size() == static_cast<std::size_t>(count));
    CHECK(threads.contains(std::this_thread::get_id()));
    CHECK(threads_of(workers) == threads);
  }
}

TEST_CASE("each piece is done once, whatever their number") {
  Workers workers(3);
  for (const std::int64_t pieces : {0, 1, 2, 3, 1000}) {
    std::vector<int> done(static_cast<std::size_t>(pieces));
    workers.share(pieces, [&](std::int64_t i) { ++done[static_cast<std::size_t>(i)]; });
    CHECK(std::all_of(done.begin(), done.end(), [](int times) { return times == 1; }));
  }
}

TEST_CASE("within a piece libtorch has one thread, behind it as many as before") {
  const auto before = at::get_num_threads();
  at::set_num_threads(3);
  Workers workers(2);
  CHECK(at::get_num_threads() == 3);
  std::mutex mutex;
  std::set<int> within;
  std::set<bool> shared;
  std::latch both(2);
  workers.share(2, [&](std::int64_t) {
    both.arrive_and_wait();
    const std::scoped_lock lock(mutex);
    within.insert(at::get_num_threads());
    shared.insert(Workers::is_shared());
  });
  CHECK(within == std::set<int>{1});
  CHECK(shared == std::set<bool>{true});
  CHECK(!Workers::is_shared());
  CHECK(at::get_num_threads() == 3);
  at::set_num_threads(before);
}

TEST_CASE("each worker has a number of its own, the caller 0") {
  Workers workers(4);
  for (int turn = 0; turn < 3; ++turn) {
    std::latch all(4);
    std::mutex mutex;
    std::map<int, std::thread::id> found;
    workers.share(4, [&](std::int64_t) {
      all.arrive_and_wait();
      const std::scoped_lock lock(mutex);
      found[Workers::number()] = std::this_thread::get_id();
    });
    CHECK(found.size() == 4);
    CHECK(found.begin()->first == 0);
    CHECK(found.rbegin()->first == 3);
    CHECK(found[0] == std::this_thread::get_id());
  }
  CHECK(Workers::number() == 0);
}

TEST_CASE("pieces of a piece are done by its own thread") {
  Workers workers(2);
  std::mutex mutex;
  bool same = true;
  std::int64_t inner = 0;
  workers.share(8, [&](std::int64_t) {
    const auto mine = std::this_thread::get_id();
    workers.share(4, [&](std::int64_t) {
      const std::scoped_lock lock(mutex);
      same = same && std::this_thread::get_id() == mine;
      ++inner;
    });
  });
  CHECK(same);
  CHECK(inner == 32);
}

TEST_CASE("what a piece throws comes out, pieces that were not begun are left, and the workers go on") {
  Workers workers(2);
  std::mutex mutex;
  std::vector<std::int64_t> done;
  const auto share = [&] {
    workers.share(1000, [&](std::int64_t i) {
      if (i == 10) throw Error("the tenth");
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      const std::scoped_lock lock(mutex);
      done.push_back(i);
    });
  };
  CHECK_THROWS_WITH_AS(share(), "the tenth", Error);
  CHECK(done.size() < 1000);
  CHECK(threads_of(workers).size() == 2);
}

TEST_CASE("without workers it is a plain loop") {
  std::vector<std::int64_t> order;
  share(nullptr, 3, [&](std::int64_t i) { order.push_back(i); });
  CHECK(order == std::vector<std::int64_t>{0, 1, 2});
}

}  // namespace
}  // namespace rometrace::workers_test
