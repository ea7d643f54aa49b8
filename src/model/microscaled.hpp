#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "rometrace/model/weight_file.hpp"

namespace rometrace {

/// How safetensors files keep a matrix in MXFP4 (OCP's microscaling formats, 1.0), GPT-OSS's do: as two tensors of
/// bytes. "<name>_blocks" [.., in / 32, 16] has two numbers of 4 bits in each byte, the lower four bits first;
/// "<name>_scales" [.., in / 32] has the power of two, plus 127, that each 32 of them are multiplied by.
inline constexpr std::string_view kBlocksEnding = "_blocks", kScalesEnding = "_scales";

/// The numbers of a block.
inline constexpr std::int64_t kMicroscaledNumbers = 32;

/// The tensor [.., in] that both are, its `bytes` those of the blocks and its dtype "MXFP4". Throws Error, with
/// `where`, if they are no bytes or do not belong together.
TensorView microscaled_view(const std::string& name, const TensorView& blocks, const TensorView& scales,
                            const std::string& where);

/// Makes float32 of blocks: of each scale 32 numbers.
void read_microscaled(std::span<const std::byte> blocks, std::span<const std::byte> scales, float* numbers);

}  // namespace rometrace
