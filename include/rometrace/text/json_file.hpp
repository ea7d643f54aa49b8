#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "rometrace/text/input_file.hpp"

namespace rometrace {

/// What becomes of an object that has the same name twice.
enum class RepeatedNames {
  kLastCounts,  ///< as Python's json does, and so every tool that wrote the file
  kRefuse,      ///< for files where a repeat can only be a mistake or an attack
};

/// Real files need fewer than ten levels; nothing that walks a value recursively has to fear the stack at this depth.
inline constexpr std::size_t kMaxJsonDepth = 256;

/// A place in a text, both numbers from 1, columns in characters.
struct TextPlace {
  std::int64_t line = 1;
  std::int64_t column = 1;

  /// Goes on behind `text`, which begins here.
  void pass(std::string_view text);
};

/// The bytes of a whole file. Throws Error naming the file: missing, a folder, unreadable, not of the kind, empty, a
/// Git LFS pointer.
std::string read_text_file(const std::filesystem::path& path, FileKind kind = FileKind::kRegular);

/// Parses one JSON value (RFC 8259, UTF-8; no comments, no NaN). `where` (a file, say) opens the messages; `place` is
/// where the text begins in it. Throws Error: not JSON (line and column), nested deeper than 256 levels, a
/// repeated name where that is refused.
nlohmann::json parse_json(std::string_view text, std::string_view where,
                          RepeatedNames repeated = RepeatedNames::kLastCounts, const TextPlace& place = {});

/// The member `name` of a JSON object, null where it has none. The others are checked as parse_json() checks them, but
/// not built: a small part of a large file costs little memory. Throws Error as parse_json() does, or for no object.
nlohmann::json parse_json_member(std::string_view text, std::string_view where, std::string_view name);

/// `read_text_file` of a regular file, then `parse_json`.
nlohmann::json parse_json_file(const std::filesystem::path& path, RepeatedNames repeated = RepeatedNames::kLastCounts);

}  // namespace rometrace
