#include "model/gguf_types.hpp"

#include <algorithm>
#include <array>
#include <bit>

// The layouts of blocks and their arithmetic, from ggml's description of its types and the Python package gguf, which
// is the judge. The compiler must not fuse a product and a sum (see CMakeLists.txt).

namespace rometrace {
namespace {

using Byte = std::byte;

unsigned byte_at(const Byte* bytes, std::size_t at) {
  return std::to_integer<unsigned>(bytes[at]);
}

float signed_byte_at(const Byte* bytes, std::size_t at) {
  return static_cast<float>(static_cast<std::int8_t>(std::to_integer<std::uint8_t>(bytes[at])));
}

float half_at(const Byte* bytes, std::size_t at) {
  const std::uint32_t bits = byte_at(bytes, at) | byte_at(bytes, at + 1) << 8U;
  const std::uint32_t sign = (bits & 0x8000U) << 16U, exponent = bits >> 10U & 0x1FU, fraction = bits & 0x3FFU;
  if (exponent == 0) {
    constexpr float kLeast = 0x1p-24F;  // the smallest above zero
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(fraction) * kLeast) | sign);
  }
  const std::uint32_t widened = exponent == 0x1F ? 0xFFU : exponent + 112;
  return std::bit_cast<float>(sign | widened << 23U | fraction << 13U);
}

float of(unsigned number) {
  return static_cast<float>(number);
}

/// A number that was stored with `offset` added to it.
float without(unsigned offset, unsigned number) {
  return static_cast<float>(static_cast<int>(number) - static_cast<int>(offset));
}

// ---- Blocks of 32: scale, perhaps a least value, numbers. Low halves of bytes come before high ones ----

constexpr std::size_t kHalfBlock = 16;

void read_q4_0(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < kHalfBlock; ++i) {
    const auto both = byte_at(block, 2 + i);
    numbers[i] = scale * without(8, both & 15U);
    numbers[i + kHalfBlock] = scale * without(8, both >> 4U);
  }
}

void read_q4_1(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0), least = half_at(block, 2);
  for (std::size_t i = 0; i < kHalfBlock; ++i) {
    const auto both = byte_at(block, 4 + i);
    numbers[i] = scale * of(both & 15U) + least;
    numbers[i + kHalfBlock] = scale * of(both >> 4U) + least;
  }
}

/// Number `at` of a block whose fifth bits lie apart.
unsigned five_bits(const Byte* high, const Byte* low, std::size_t at) {
  const auto bit = byte_at(high, at / 8) >> at % 8 & 1U;
  const auto both = byte_at(low, at % kHalfBlock);
  return (at < kHalfBlock ? both & 15U : both >> 4U) | bit << 4U;
}

void read_q5_0(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < 2 * kHalfBlock; ++i) numbers[i] = scale * without(16, five_bits(block + 2, block + 6, i));
}

void read_q5_1(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0), least = half_at(block, 2);
  for (std::size_t i = 0; i < 2 * kHalfBlock; ++i) {
    numbers[i] = scale * of(five_bits(block + 4, block + 8, i)) + least;
  }
}

void read_q8_0(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0);
  for (std::size_t i = 0; i < 2 * kHalfBlock; ++i) numbers[i] = signed_byte_at(block, 2 + i) * scale;
}

// What four bits stand for in the types IQ4; in MXFP4, doubled.
constexpr std::array<float, 16> kUneven = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr std::array<float, 16> kFloat4 = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void read_by_table(float scale, const std::array<float, 16>& table, const Byte* codes, float* numbers) {
  for (std::size_t i = 0; i < kHalfBlock; ++i) {
    const auto both = byte_at(codes, i);
    numbers[i] = scale * table[both & 15U];
    numbers[i + kHalfBlock] = scale * table[both >> 4U];
  }
}

void read_iq4_nl(const Byte* block, float* numbers) {
  read_by_table(half_at(block, 0), kUneven, block + 2, numbers);
}

void read_mxfp4(const Byte* block, float* numbers) {
  const std::uint32_t exponent = byte_at(block, 0);  // half of the power of two, as the table is doubled
  const auto scale = std::bit_cast<float>(exponent < 2 ? 0x00200000U << exponent : (exponent - 1) << 23U);
  read_by_table(scale, kFloat4, block + 1, numbers);
}

// ---- Blocks of 256: scales of parts, and a scale of these ----

constexpr std::size_t kLarge = 256;

void read_q2_k(const Byte* block, float* numbers) {
  const Byte *scales = block, *codes = block + 16;
  const float scale = half_at(block, 80), least = half_at(block, 82);
  for (std::size_t i = 0; i < kLarge; ++i) {
    const auto part = byte_at(scales, i / 16);
    const auto code = byte_at(codes, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3U;
    const float part_scale = scale * of(part & 15U), part_least = least * of(part >> 4U);
    numbers[i] = part_scale * of(code) - part_least;
  }
}

void read_q3_k(const Byte* block, float* numbers) {
  const Byte *high = block, *codes = block + 32, *scales = block + 96;
  const float scale = half_at(block, 108);
  std::array<float, 16> part_scales{};
  for (std::size_t part = 0; part < part_scales.size(); ++part) {
    const auto low = byte_at(scales, part % 8) >> (part / 8 * 4) & 15U;
    const auto upper = byte_at(scales, 8 + part % 4) >> (part / 4 * 2) & 3U;
    part_scales[part] = scale * without(32, low | upper << 4U);
  }
  for (std::size_t i = 0; i < kLarge; ++i) {
    const auto code = byte_at(codes, i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & 3U;
    const auto bit = byte_at(high, i % 32) >> (i / 32) & 1U;
    numbers[i] = part_scales[i / 16] * without(4, code | bit << 2U);
  }
}

/// The scale and the least value of one of 8 parts, 6 bits each, of 12 bytes.
struct SixBits {
  unsigned scale, least;
};

SixBits six_bits(const Byte* bytes, std::size_t part) {
  if (part < 4) return {byte_at(bytes, part) & 63U, byte_at(bytes, part + 4) & 63U};
  const auto both = byte_at(bytes, part + 4);
  return {(both & 15U) | (byte_at(bytes, part - 4) >> 2U & 0x30U), both >> 4U | (byte_at(bytes, part) >> 2U & 0x30U)};
}

void read_q4_k(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0), least = half_at(block, 2);
  const Byte* codes = block + 16;
  for (std::size_t part = 0; part < 8; ++part) {
    const auto of_part = six_bits(block + 4, part);
    const float part_scale = scale * of(of_part.scale), part_least = least * of(of_part.least);
    for (std::size_t i = 0; i < 32; ++i) {
      const auto code = byte_at(codes, part / 2 * 32 + i) >> (part % 2 * 4) & 15U;
      numbers[part * 32 + i] = part_scale * of(code) - part_least;
    }
  }
}

void read_q5_k(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0), least = half_at(block, 2);
  const Byte *high = block + 16, *codes = block + 48;
  for (std::size_t part = 0; part < 8; ++part) {
    const auto of_part = six_bits(block + 4, part);
    const float part_scale = scale * of(of_part.scale), part_least = least * of(of_part.least);
    for (std::size_t i = 0; i < 32; ++i) {
      const auto code = byte_at(codes, part / 2 * 32 + i) >> (part % 2 * 4) & 15U;
      const auto bit = byte_at(high, i) >> part & 1U;
      numbers[part * 32 + i] = part_scale * of(code | bit << 4U) - part_least;
    }
  }
}

void read_q6_k(const Byte* block, float* numbers) {
  const Byte *low = block, *high = block + 128, *scales = block + 192;
  const float scale = half_at(block, 208);
  for (std::size_t i = 0; i < kLarge; ++i) {
    const auto half = i / 128, within = i % 128;
    const auto code = byte_at(low, half * 64 + within % 64) >> (within / 64 * 4) & 15U;
    const auto upper = byte_at(high, half * 32 + within % 32) >> (within / 32 * 2) & 3U;
    const float part_scale = scale * signed_byte_at(scales, i / 16);
    numbers[i] = part_scale * without(32, code | upper << 4U);
  }
}

void read_iq4_xs(const Byte* block, float* numbers) {
  const float scale = half_at(block, 0);
  const auto high = byte_at(block, 2) | byte_at(block, 3) << 8U;
  for (std::size_t part = 0; part < 8; ++part) {
    const auto low = byte_at(block, 4 + part / 2) >> (part % 2 * 4) & 15U;
    const auto upper = high >> (part * 2) & 3U;
    read_by_table(scale * without(32, low | upper << 4U), kUneven, block + 8 + part * 16, numbers + part * 32);
  }
}

constexpr std::array<GgufType, 34> kTypes = {{
    {0, "F32", 1, 4, nullptr},           {1, "F16", 1, 2, nullptr},
    {2, "Q4_0", 32, 18, read_q4_0},      {3, "Q4_1", 32, 20, read_q4_1},
    {6, "Q5_0", 32, 22, read_q5_0},      {7, "Q5_1", 32, 24, read_q5_1},
    {8, "Q8_0", 32, 34, read_q8_0},      {9, "Q8_1", 32, 40, nullptr},
    {10, "Q2_K", 256, 84, read_q2_k},    {11, "Q3_K", 256, 110, read_q3_k},
    {12, "Q4_K", 256, 144, read_q4_k},   {13, "Q5_K", 256, 176, read_q5_k},
    {14, "Q6_K", 256, 210, read_q6_k},   {15, "Q8_K", 256, 292, nullptr},
    {16, "IQ2_XXS", 256, 66, nullptr},   {17, "IQ2_XS", 256, 74, nullptr},
    {18, "IQ3_XXS", 256, 98, nullptr},   {19, "IQ1_S", 256, 50, nullptr},
    {20, "IQ4_NL", 32, 18, read_iq4_nl}, {21, "IQ3_S", 256, 110, nullptr},
    {22, "IQ2_S", 256, 82, nullptr},     {23, "IQ4_XS", 256, 136, read_iq4_xs},
    {24, "I8", 1, 1, nullptr},           {25, "I16", 1, 2, nullptr},
    {26, "I32", 1, 4, nullptr},          {27, "I64", 1, 8, nullptr},
    {28, "F64", 1, 8, nullptr},          {29, "IQ1_M", 256, 56, nullptr},
    {30, "BF16", 1, 2, nullptr},         {34, "TQ1_0", 256, 54, nullptr},
    {35, "TQ2_0", 256, 66, nullptr},     {39, "MXFP4", 32, 17, read_mxfp4},
    {40, "NVFP4", 64, 36, nullptr},      {41, "Q1_0", 128, 18, nullptr},
}};

}  // namespace

const GgufType* gguf_type(std::uint32_t code) {
  const auto* found = std::ranges::find(kTypes, code, &GgufType::code);
  return found == kTypes.end() ? nullptr : found;
}

const GgufType* gguf_block_type(std::string_view name) {
  const auto* found = std::ranges::find(kTypes, name, &GgufType::name);
  return found == kTypes.end() || found->read == nullptr ? nullptr : found;
}

std::string gguf_type_names() {
  std::string names = "F32, F16, BF16, F64";
  for (const auto& type : kTypes) {
    if (type.read != nullptr) names += ", " + std::string(type.name);
  }
  return names;
}

}  // namespace rometrace
