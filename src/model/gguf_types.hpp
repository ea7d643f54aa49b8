#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rometrace {

/// How a tensor of a GGUF file keeps its numbers: in blocks of so many, each of so many bytes.
struct GgufType {
  std::uint32_t code;     ///< ggml's
  std::string_view name;  ///< ggml's; of plain numbers it is safetensors' too ("F32", "BF16")
  std::int64_t numbers;   ///< of a block, which lies within a row; 1: plain numbers
  std::size_t bytes;      ///< of a block
  /// Makes float32 of a block, `numbers` of them: with ggml's operations in its order, rounded after each, so that they
  /// are those that the Python package gguf gives. Null: plain numbers, or a type that is not read here.
  void (*read)(const std::byte* block, float* numbers);
};

/// The type of a code; null for one that is not known.
const GgufType* gguf_type(std::uint32_t code);

/// The type in blocks that are read here; null for another name.
const GgufType* gguf_block_type(std::string_view name);

/// The names of the types that are read, for messages: "F32, F16, ...".
std::string gguf_type_names();

}  // namespace rometrace
