#include "model/layer_stream.hpp"

#include <ATen/Parallel.h>

#include <utility>

namespace rometrace {

std::shared_ptr<const Block> LayerStream::at(std::int64_t layer) {
  const std::scoped_lock lock(mutex_);
  if (layer == current_layer_) return current_;
  const bool downwards = layer + 1 == current_layer_;
  current_layer_ = -1;
  current_.reset();  // before another is read: no more than two are held
  std::shared_ptr<const Block> found;
  if (next_.valid()) {
    auto ahead = std::move(next_);
    if (next_layer_ == layer) {
      found = ahead.get();
    } else {
      ahead.wait();
    }
  }
  if (!found) found = read_(layer);
  current_ = found;
  current_layer_ = layer;
  next_layer_ = downwards && layer > 0 ? layer - 1 : (layer + 1) % layers_;
  if (next_layer_ != layer) {
    const auto threads = at::get_num_threads();
    next_ = std::async(std::launch::async, [this, next = next_layer_, threads] {
      at::set_num_threads(threads);  // a thread's own setting
      return read_(next);
    });
  }
  return found;
}

}  // namespace rometrace
