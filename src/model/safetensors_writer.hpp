#pragma once

#include <filesystem>
#include <span>

#include "rometrace/model/safetensors.hpp"

namespace rometrace {

/// Writes a safetensors file of these tensors, in this order; their bytes are taken as they are. Written under another
/// name in the same folder, for the user alone to read, and renamed, so that no one ever sees a part of it. Throws
/// Error.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors);

}  // namespace rometrace
