#include "rometrace/model/replicas.hpp"

#include <latch>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "rometrace/error.hpp"

namespace rometrace::replicas_test {
namespace {

using testing::message_of;

const std::filesystem::path kDemo = std::filesystem::path(ROMETRACE_SOURCE_DIR) / "share/rometrace/demo";

Replicas on_the_cpu(std::size_t count) {
  return Replicas::load(kDemo, {}, std::vector<at::Device>(count, at::kCPU));
}

TEST_CASE("each device has a model of its own, with the same numbers") {
  const auto models = on_the_cpu(3);
  REQUIRE(models.count() == 3);
  const std::set<std::shared_ptr<const Decoder>> distinct(models.all().begin(), models.all().end());
  CHECK(distinct.size() == 3);
  CHECK(&models.first() == models.all().front().get());
  const std::vector<std::int32_t> ids = {5, 6, 7};
  const auto expected = models.first().forward(ids, 1);
  for (const auto& model : models.all()) CHECK(model->forward(ids, 1).equal(expected));
}

TEST_CASE("a model is only ever run by its own thread, and every one is") {
  const auto models = on_the_cpu(3);
  std::map<const Decoder*, std::set<std::thread::id>> threads;
  for (int turn = 0; turn < 3; ++turn) {
    std::latch all(3);
    std::mutex mutex;
    models.share(3, [&](std::int64_t, const Decoder& model) {
      all.arrive_and_wait();
      const std::scoped_lock lock(mutex);
      threads[&model].insert(std::this_thread::get_id());
    });
  }
  REQUIRE(threads.size() == 3);
  std::set<std::thread::id> distinct;
  for (const auto& [model, mine] : threads) {
    CHECK(mine.size() == 1);
    distinct.insert(mine.begin(), mine.end());
  }
  CHECK(distinct.size() == 3);
}

TEST_CASE("pieces are done once each, by one model in order") {
  for (const std::size_t count : {1, 2, 5}) {
    const auto models = on_the_cpu(count);
    for (const std::int64_t pieces : {0, 1, 7}) {
      std::mutex mutex;
      std::vector<std::int64_t> done;
      models.share(pieces, [&](std::int64_t i, const Decoder&) {
        const std::scoped_lock lock(mutex);
        done.push_back(i);
      });
      CHECK(std::set<std::int64_t>(done.begin(), done.end()).size() == static_cast<std::size_t>(pieces));
      CHECK(done.size() == static_cast<std::size_t>(pieces));
      if (count == 1) CHECK(std::is_sorted(done.begin(), done.end()));
    }
  }
}

TEST_CASE("what a piece throws, and what loading does, comes out") {
  const auto models = on_the_cpu(2);
  CHECK(message_of<Error>([&] {
          models.share(4, [](std::int64_t i, const Decoder&) {
            if (i == 1) throw Error("the second piece");
          });
        }) == "the second piece");
  CHECK_THROWS_AS(Replicas::load(kDemo / "nowhere", {}, std::vector<at::Device>(2, at::kCPU)), Error);
}

}  // namespace
}  // namespace rometrace::replicas_test
