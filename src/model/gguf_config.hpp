#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "rometrace/model/config.hpp"
#include "rometrace/model/weight_file.hpp"
#include "text/gguf_header.hpp"

namespace rometrace {

/// The decoder that a GGUF file describes: its keys as the config.json of the model that was converted, read as one.
/// What is not said there is what llama.cpp takes it for. Throws Error as read_config() does: an architecture, a kind
/// of file or a key of the architecture that is not known, a key that is missing.
DecoderConfig read_gguf_config(const std::filesystem::path& file);

/// The same of the file's head and the tensors of all its parts.
DecoderConfig to_config(const GgufHeader& header, std::span<const TensorView> tensors);

}  // namespace rometrace
