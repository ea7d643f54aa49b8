#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// What a safetensors file holds.
struct SafetensorsContent {
  std::vector<TensorView> tensors;  ///< in the order of their bytes
  std::map<std::string, std::string, std::less<>> metadata;
};

/// That of a file of which `file` are all the bytes; see `SafetensorsFile::open`. `where` (the file) opens the
/// messages. Throws Error.
SafetensorsContent read_safetensors(std::span<const std::byte> file, const std::string& where);

}  // namespace rometrace
