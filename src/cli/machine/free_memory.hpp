#pragma once

#include <c10/core/Device.h>

#include <cstdint>

namespace rometrace::cli {

/// Bytes that this process can still take: of main memory, what the kernel calls available or the control group's limit
/// leaves, whichever is less (the largest number if neither can be read); of a GPU, what is free there.
std::int64_t free_memory(c10::Device device);

}  // namespace rometrace::cli
