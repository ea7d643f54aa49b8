#include "rometrace/model/replicas.hpp"

#include <c10/util/Exception.h>

#include <utility>

#include "rometrace/work/workers.hpp"

namespace rometrace {

Replicas::Replicas(std::shared_ptr<const Decoder> model) : models_{std::move(model)} {}
Replicas::~Replicas() = default;
Replicas::Replicas(Replicas&&) noexcept = default;
Replicas& Replicas::operator=(Replicas&&) noexcept = default;

Replicas Replicas::load(const std::filesystem::path& model, const LoadOptions& options,
                        std::span<const at::Device> devices) {
  TORCH_INTERNAL_ASSERT(!devices.empty(), "a model needs a device");
  const auto on = [&](at::Device device) {
    const CurrentDevice current(device);
    auto own = options;
    own.device = device;
    return Decoder::load(model, own);
  };
  if (devices.size() == 1) return Replicas(on(devices.front()));
  Replicas loaded(nullptr);
  loaded.models_.resize(devices.size());
  loaded.workers_ = std::make_unique<Workers>(static_cast<int>(devices.size()));
  loaded.workers_->share(std::ssize(devices), [&](std::int64_t i) {
    loaded.models_[static_cast<std::size_t>(i)] = on(devices[static_cast<std::size_t>(i)]);
  });
  return loaded;
}

void Replicas::share(std::int64_t pieces, const std::function<void(std::int64_t, const Decoder&)>& work) const {
  if (count() == 1) {
    for (std::int64_t i = 0; i < pieces; ++i) work(i, first());
    return;
  }
  // A thread is always the same worker, so a model's device has one thread.
  workers_->share(pieces, [&](std::int64_t i) {
    const auto& model = *models_.at(static_cast<std::size_t>(Workers::number()));
    const CurrentDevice current(model.device());
    work(i, model);
  });
}

}  // namespace rometrace
