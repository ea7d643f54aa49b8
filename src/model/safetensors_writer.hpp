#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "rometrace/model/safetensors.hpp"

namespace rometrace {

/// The texts by name that a header has beside the tensors, UTF-8.
using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

/// What a safetensors file of these tensors begins with: its length and its header. Behind it come their bytes, in this
/// order.
std::string safetensors_header(std::span<const TensorView> tensors, const SafetensorsMetadata& metadata = {});

/// Writes a safetensors file of these tensors, in this order; their bytes are taken as they are. Written under another
/// name in the same folder, for the user alone to read, and renamed, so that no one ever sees a part of it. Throws
/// Error.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace rometrace
