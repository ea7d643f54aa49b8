#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <string>

// A device that is none: libtorch's dispatch key for devices of other people's (PrivateUse1), computed by the CPU's
// kernels. What a program may do with tensors of a GPU it may do with its tensors, and nothing else: its addresses are
// no addresses of the host, what lies on it and on the CPU is refused together where CUDA refuses it, and memory that
// was not written to is not a number. It shows neither speed, nor another machine's rounding, nor what happens at once.

namespace rometrace::testing {

/// How many there are.
inline constexpr int kPretendDevices = 2;

/// One of them, "pretend:0" and so on.
c10::Device pretend_device(int index = 0);

/// What was asked of all of them.
struct DeviceCounts {
  struct Copies {
    std::int64_t count = 0, bytes = 0;
    bool operator==(const Copies&) const = default;
  };

  /// By name, what a GPU has a kernel for: not views, memory, or operations that are made of others.
  std::map<std::string, std::int64_t> operations;
  Copies to_device, to_host;
  /// How often the host waited for what was computed: copies to it, single numbers of it, and operations whose result
  /// has a size that only the values tell.
  std::int64_t waits = 0;
  std::int64_t numbers = 0;  ///< those of the waits that were for a single number: item() and its like

  std::int64_t launches() const;  ///< of all operations
  std::string text() const;       ///< "3 mm, 1 add.out, .."; most first

  DeviceCounts operator-(const DeviceCounts& before) const;
  bool operator==(const DeviceCounts&) const = default;
};

/// Since the program began.
DeviceCounts device_counts();

/// What is asked of the devices from here on.
class DeviceWatch {
 public:
  DeviceWatch() : before_(device_counts()) {}
  DeviceCounts counts() const { return device_counts() - before_; }

 private:
  DeviceCounts before_;
};

}  // namespace rometrace::testing
