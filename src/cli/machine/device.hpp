#pragma once

#include <c10/core/Device.h>

#include <string>

namespace rometrace::cli {

/// "cpu", "cuda" or "cuda:<i>". Throws Error, with what libtorch said if a GPU was asked for and cannot be used.
c10::Device parse_device(const std::string& text);

}  // namespace rometrace::cli
