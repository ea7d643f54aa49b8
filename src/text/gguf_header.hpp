#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

/// What a GGUF file begins with: values by their keys, and what its tensors are. Both the tokeniser and the model are
/// made of it. Immutable.
class GgufHeader {
 public:
  /// One entry of the directory of tensors.
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;  ///< the slowest dimension first, as PyTorch has it; sizes from 1
    std::uint32_t type = 0;           ///< by ggml's code
    std::uint64_t begin = 0;          ///< of its bytes in the file; not beyond its end
  };

  /// Reads what is at the front of a GGUF file of version 2 or 3, little-endian, of which `file` are all the bytes;
  /// they must outlive the object. `where` (the file) opens the messages. Every number is checked before it is used.
  /// Throws Error: another format or version, cut short, a key or a name twice, a value of no known type, an alignment
  /// that is none, a tensor of more than 4 dimensions or whose bytes begin elsewhere than the format has it.
  static GgufHeader read(std::span<const std::byte> file, std::string where);

  const std::string& where() const { return where_; }
  const std::vector<Tensor>& tensors() const { return tensors_; }  ///< in the file's order
  std::vector<std::string> keys() const;                           ///< sorted

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }

  // The value of a key; nothing where the file has none. Throw Error where it is of another type.
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::int64_t> whole_number(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  ///< whole or not
  std::optional<bool> flag(std::string_view key) const;
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> whole_numbers(std::string_view key) const;  ///< booleans too, as 0 and 1
  std::optional<std::vector<float>> numbers(std::string_view key) const;
  std::optional<std::span<const std::byte>> bytes(std::string_view key) const;  ///< an array of these

  bool is_list(std::string_view key) const;
  std::string shown(std::string_view key) const;  ///< its value in a message; has(key) holds

  /// Throws an Error that says what the key's value is; has(key) holds.
  [[noreturn]] void refuse(std::string_view key, const std::string& expected) const;

 private:
  friend class GgufReader;

  /// By the format's codes.
  enum class Type : std::uint32_t {
    kUint8,
    kInt8,
    kUint16,
    kInt16,
    kUint32,
    kInt32,
    kFloat32,
    kBool,
    kString,
    kArray,
    kUint64,
    kInt64,
    kFloat64,
  };

  struct Value {
    Type type = Type::kUint8;  ///< of a list: of its elements
    bool is_list = false;
    std::uint64_t count = 1;
    std::span<const std::byte> bytes;  ///< of all elements, each text behind its length
  };

  static std::size_t size_of(Type type);  ///< in bytes; 0 for what has no fixed size
  static std::int64_t whole_number(const Value& value, std::size_t at);
  static double real_number(const Value& value, std::size_t at);
  const Value* find(std::string_view key) const;
  const Value* find(std::string_view key, bool is_list, bool (*is_good)(Type), const char* expected) const;

  std::string where_;
  std::map<std::string, Value, std::less<>> values_;
  std::vector<Tensor> tensors_;
};

/// Whether a model is given as a file: not as a folder, nor as a name.
bool is_model_file(const std::filesystem::path& path);

/// The files of the model that a GGUF file is, or is a part of, in order: of m-00002-of-00003.gguf these are
/// m-00001-of-00003.gguf and so on. Whether they are there is not looked at. Throws Error for a part of no such number.
std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& file);

}  // namespace rometrace
