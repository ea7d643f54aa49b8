#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// The tensors of a torch.save file of which `file` are all the bytes; see `TorchFile::open`. `where` (the file) opens
/// the messages. Throws Error.
std::vector<TensorView> read_torch_tensors(std::span<const std::byte> file, const std::string& where);

}  // namespace rometrace
