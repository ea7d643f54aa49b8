#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rometrace::testing {

/// The bytes of a number, the least significant first.
inline std::string little_endian_bytes(std::uint64_t number, std::size_t length) {
  std::string bytes;
  for (std::size_t i = 0; i < length; ++i) bytes += static_cast<char>(number >> 8 * i & 0xFFU);
  return bytes;
}

/// A GGUF file, put together value by value and tensor by tensor; its counts and its version can be made to lie.
class GgufBytes {
 public:
  static std::string text_bytes(std::string_view text) { return little_endian_bytes(text.size(), 8).append(text); }

  /// A value whose bytes are given, of a type by the format's code.
  GgufBytes& value(std::string_view key, std::uint32_t type, std::string_view bytes) {
    values_ += text_bytes(key) + little_endian_bytes(type, 4).append(bytes);
    ++value_count;
    return *this;
  }
  GgufBytes& text(std::string_view key, std::string_view text) { return value(key, 8, text_bytes(text)); }
  GgufBytes& number(std::string_view key, std::uint32_t number) {
    return value(key, 4, little_endian_bytes(number, 4));
  }
  GgufBytes& real(std::string_view key, float number) {
    return value(key, 6, little_endian_bytes(std::bit_cast<std::uint32_t>(number), 4));
  }
  GgufBytes& flag(std::string_view key, bool flag) { return value(key, 7, std::string(1, flag ? '\1' : '\0')); }
  GgufBytes& list(std::string_view key, std::uint32_t type, std::uint64_t count, std::string_view bytes) {
    return value(key, 9, little_endian_bytes(type, 4) + little_endian_bytes(count, 8).append(bytes));
  }
  GgufBytes& texts(std::string_view key, const std::vector<std::string>& texts) {
    std::string bytes;
    for (const auto& text : texts) bytes += text_bytes(text);
    return list(key, 8, texts.size(), bytes);
  }
  GgufBytes& numbers(std::string_view key, const std::vector<std::int32_t>& numbers) {
    std::string bytes;
    for (const auto number : numbers) bytes += little_endian_bytes(static_cast<std::uint32_t>(number), 4);
    return list(key, 5, numbers.size(), bytes);
  }
  GgufBytes& reals(std::string_view key, const std::vector<float>& numbers) {
    std::string bytes;
    for (const auto number : numbers) bytes += little_endian_bytes(std::bit_cast<std::uint32_t>(number), 4);
    return list(key, 6, numbers.size(), bytes);
  }

  /// An entry of the directory: dimensions as the file has them, the fastest first.
  GgufBytes& entry(std::string_view name, std::initializer_list<std::uint64_t> dimensions, std::uint32_t type,
                   std::uint64_t offset) {
    tensors_ += text_bytes(name) + little_endian_bytes(dimensions.size(), 4);
    for (const auto size : dimensions) tensors_ += little_endian_bytes(size, 8);
    tensors_ += little_endian_bytes(type, 4) + little_endian_bytes(offset, 8);
    ++tensor_count;
    return *this;
  }
  /// The same with its bytes behind those that are there.
  GgufBytes& tensor(std::string_view name, std::initializer_list<std::uint64_t> dimensions, std::uint32_t type,
                    std::string_view bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    entry(name, dimensions, type, data_.size());
    data_ += bytes;
    return *this;
  }

  std::string bytes() const {
    std::string file = "GGUF" + little_endian_bytes(version, 4) + little_endian_bytes(tensor_count, 8) +
                       little_endian_bytes(value_count, 8) + values_ + tensors_;
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data_;
  }

  std::uint32_t version = 3;
  std::uint64_t tensor_count = 0, value_count = 0;
  std::size_t alignment = 32;

 private:
  std::string values_, tensors_, data_;
};

}  // namespace rometrace::testing
