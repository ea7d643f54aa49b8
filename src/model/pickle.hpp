#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rometrace {

enum class PickleKind {
  kNone,
  kBool,          ///< `integer`: 0 or 1
  kInteger,       ///< `integer`
  kLargeInteger,  ///< one that 64 bits do not hold; `text`: its bytes in two's complement, the least significant first
  kFloat,         ///< its value is not kept
  kText,          ///< `text`
  kBytes,         ///< `text`
  kTuple,         ///< `items`
  kList,          ///< `items`
  kDict,          ///< `items`: key, value, key, value, ...; a collections.OrderedDict as well
  kGlobal,        ///< a class or function: `text` its module, `name` its name
  kCall,          ///< `items`: the kGlobal that is called, the kTuple of its arguments. Nothing calls it here
  kPersistent,    ///< `items`: the one value by which the file names something outside the pickle
};

/// A value of a pickle. Values may be shared, and lists and dictionaries may hold themselves.
struct PickleValue {
  PickleKind kind = PickleKind::kNone;
  std::int64_t integer = 0;
  std::string_view text = {};  ///< points into the bytes that were read
  std::string_view name = {};  ///< likewise
  std::vector<const PickleValue*> items = {};
};

/// What a value is, for messages: "a list", "the number 5".
std::string describe(const PickleValue& value);

/// Whether a pickle may refer to `module`.`name`.
using IsKnownGlobal = bool (*)(std::string_view module, std::string_view name);

/// A Python pickle of protocol 2 to 5, read without running anything: calls are kept as values (but that of
/// collections.OrderedDict, which makes a dictionary). Opcodes for which plain data has no use are refused.
class Pickle {
 public:
  /// Reads the pickle at the front of `bytes`, which must outlive the object; what follows it is not looked at. `where`
  /// (the file) opens the messages. Throws Error: cut short, a name that `is_known` does not know, an opcode that is
  /// not understood, values missing from the stack, more than 2 million values, more than 16 million
  /// opcodes or items.
  static Pickle read(std::span<const std::byte> bytes, const std::string& where, IsKnownGlobal is_known);

  const PickleValue& root() const { return *root_; }
  const std::deque<PickleValue>& values() const { return values_; }  ///< all that were made, used or not
  std::size_t length() const { return length_; }  ///< in bytes

 private:
  friend class PickleMachine;
  Pickle() = default;

  std::deque<PickleValue> values_;  // where they are is where they stay, moved or not
  const PickleValue* root_ = nullptr;
  std::size_t length_ = 0;
};

}  // namespace rometrace
