#pragma once

#include <c10/core/DeviceGuard.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "rometrace/model/decoder.hpp"

namespace rometrace {

class Workers;

/// Has a device for the calling thread's current one as long as it lives. Nothing of the CPU.
class CurrentDevice {
 public:
  explicit CurrentDevice(at::Device device) {
    if (!device.is_cpu()) guard_.reset_device(device);
  }

 private:
  c10::OptionalDeviceGuard guard_;
};

/// One model on each of several devices: loaded of the same files with the same options, so that each may take whatever
/// piece of work is next. Or one model alone.
class Replicas {
 public:
  explicit Replicas(std::shared_ptr<const Decoder> model);
  ~Replicas();
  Replicas(Replicas&& other) noexcept;
  Replicas& operator=(Replicas&& other) noexcept;

  /// Loads one for each of `devices` (at least one; LoadOptions::device does not count), side by side, each with
  /// LoadOptions::memory for itself. On the CPU, and while they are read, they share the pages of the mapped files.
  /// Throws as Decoder::load() does.
  static Replicas load(const std::filesystem::path& model, const LoadOptions& options,
                       std::span<const at::Device> devices);

  std::int64_t count() const { return static_cast<std::int64_t>(models_.size()); }
  /// The first, which answers for all where the device does not matter: config, sizes, whether layers are streamed.
  const Decoder& first() const { return *models_.front(); }
  const std::vector<std::shared_ptr<const Decoder>>& all() const { return models_; }

  /// Calls work(0, model) .. work(pieces - 1, model) as Workers::share() does, from one counter: by a thread for each
  /// model, which passes its own and has that model's device for the current one. A single model's are called one after
  /// the other by the calling thread.
  void share(std::int64_t pieces, const std::function<void(std::int64_t, const Decoder&)>& work) const;

 private:
  std::vector<std::shared_ptr<const Decoder>> models_;
  std::unique_ptr<Workers> workers_;  // one for each model; none of a single one
};

}  // namespace rometrace
