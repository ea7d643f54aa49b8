#include "model/layer_stream.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

#include "checks.hpp"
#include "files.hpp"

namespace rometrace::layer_stream_test {
namespace {

using Layer = std::shared_ptr<const Block>;

/// Stands in for layers: counts those that are read and those that somebody holds.
class Shelf {
 public:
  explicit Shelf(std::int64_t layers) {
    for (std::int64_t layer = 0; layer < layers; ++layer) reads_[layer] = 0;
  }

  Layer read(std::int64_t layer) {
    ++reads_.at(layer);
    if (layer == broken_) throw std::runtime_error("cannot be read");
    most_ = std::max<int>(most_, ++held_);
    const std::shared_ptr<std::int64_t> owner(new std::int64_t(layer), [this](const std::int64_t* each) {
      --held_;
      delete each;
    });
    // Never followed: what counts is who holds it.
    return {owner, reinterpret_cast<const Block*>(owner.get())};
  }

  LayerStream stream(std::int64_t layers) {
    return {layers, [this](std::int64_t layer) { return read(layer); }};
  }

  void breaks(std::int64_t layer) { broken_ = layer; }
  int reads(std::int64_t layer) const { return reads_.at(layer).load(); }
  int most_held() const { return most_; }
  int held() const { return held_; }

 private:
  std::map<std::int64_t, std::atomic<int>> reads_;
  std::atomic<int> held_ = 0, most_ = 0;
  std::atomic<std::int64_t> broken_ = -1;
};

std::int64_t number_of(const Layer& layer) {
  return *reinterpret_cast<const std::int64_t*>(layer.get());
}

TEST_CASE("layers asked for in order are read once a round, and no more than two are held") {
  constexpr std::int64_t kLayers = 5;
  Shelf shelf(kLayers);
  {
    auto stream = shelf.stream(kLayers);
    for (int round = 0; round < 3; ++round) {
      for (std::int64_t layer = 0; layer < kLayers; ++layer) CHECK(number_of(stream.at(layer)) == layer);
    }
    CHECK(number_of(stream.at(kLayers - 1)) == kLayers - 1);  // the one at hand
  }
  for (std::int64_t layer = 1; layer < kLayers; ++layer) CHECK(shelf.reads(layer) == 3);
  CHECK(shelf.reads(0) == 4);  // read ahead for a round that did not come
  CHECK(shelf.most_held() <= 2);
  CHECK(shelf.held() == 0);
}

TEST_CASE("while a layer is used the next one is read") {
  Shelf shelf(3);
  auto stream = shelf.stream(3);
  const auto used = stream.at(1);
  for (int tenths = 0; shelf.held() < 2 && tenths < 100; ++tenths) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(shelf.reads(2) == 1);
  CHECK(shelf.held() == 2);
}

TEST_CASE("a layer that was not expected is read, whatever was read ahead") {
  Shelf shelf(4);
  auto stream = shelf.stream(4);
  for (const std::int64_t layer : {0, 2, 3, 1, 1, 0}) CHECK(number_of(stream.at(layer)) == layer);
  CHECK(shelf.most_held() <= 2);
}

TEST_CASE("one layer alone is read once") {
  Shelf shelf(1);
  auto stream = shelf.stream(1);
  for (int round = 0; round < 3; ++round) CHECK(number_of(stream.at(0)) == 0);
  CHECK(shelf.reads(0) == 1);
}

TEST_CASE("whoever asks for a layer that cannot be read ahead hears why, and may ask again") {
  Shelf shelf(3);
  auto stream = shelf.stream(3);
  shelf.breaks(1);
  CHECK(number_of(stream.at(0)) == 0);
  CHECK(testing::message_of<std::runtime_error>([&] { stream.at(1); }) == "cannot be read");
  CHECK(testing::message_of<std::runtime_error>([&] { stream.at(1); }) == "cannot be read");
  shelf.breaks(-1);
  CHECK(number_of(stream.at(1)) == 1);
  CHECK(number_of(stream.at(2)) == 2);
}

}  // namespace
}  // namespace rometrace::layer_stream_test
