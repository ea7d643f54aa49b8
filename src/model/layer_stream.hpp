#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

/// Layers that are read when they are asked for and let go when nobody holds them. Layers are asked for in order, again
/// and again, or downwards, as a backward does: while one is used the next is read, on a thread of its own.
class LayerStream {
 public:
  using Read = std::function<std::shared_ptr<const Block>(std::int64_t layer)>;

  LayerStream(std::int64_t layers, Read read) : layers_(layers), read_(std::move(read)) {}

  /// Throws what reading the layer throws.
  std::shared_ptr<const Block> at(std::int64_t layer);

 private:
  std::int64_t layers_;
  Read read_;
  std::mutex mutex_;
  std::int64_t current_layer_ = -1, next_layer_ = -1;
  std::shared_ptr<const Block> current_;
  std::future<std::shared_ptr<const Block>> next_;
};

}  // namespace rometrace
