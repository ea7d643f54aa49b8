#include "rometrace/text/json_file.hpp"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/json_shown.hpp"
#include "text/json_tree.hpp"
#include "text/packed_text.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

/// "line 3, column 14" of the byte at `offset` of a text that begins at `place`.
std::string position_in(std::string_view text, std::size_t offset, TextPlace place) {
  place.pass(text.substr(0, std::min(offset, text.size())));
  return "line " + std::to_string(place.line) + ", column " + std::to_string(place.column);
}

/// What the parser has against the text, without its own prefix and position.
std::string complaint(std::string_view what) {
  const std::size_t dash = what.find(" - ");
  if (dash != std::string_view::npos) return one_line(what.substr(dash + 3), 160);
  const std::size_t bracket = what.find("] ");
  return one_line(bracket == std::string_view::npos ? what : what.substr(bracket + 2), 160);
}

/// Builds the value from the parser's events: unlike the parser's own builder it knows the position of every error,
/// the depth, and names that repeat.
class ValueBuilder final : public nlohmann::json_sax<json> {
 public:
  ValueBuilder(std::string_view text, std::string_view where, RepeatedNames repeated, const TextPlace& place)
      : text_(text), where_(where), place_(place), repeated_(repeated) {}

  /// Of the outermost object it builds the member `only` alone.
  ValueBuilder(std::string_view text, std::string_view where, std::string_view only)
      : text_(text), where_(where), only_(only) {}

  json take() { return tree_.take(); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(std::int64_t value) override { return add(value); }
  bool number_unsigned(std::uint64_t value) override { return add(value); }
  bool number_float(double value, const std::string&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }  // JSON text has none

  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (only_ && depth_ == 1) builds_ = name == *only_;
    if (!builds_) return true;
    if (repeated_ == RepeatedNames::kRefuse && tree_.innermost().contains(name)) {
      throw Error(where_ + ": the name " + in_quotes(name) + " appears twice in one object");
    }
    tree_.name(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    // The parser counts the bytes that it has read, the offending one included.
    const std::size_t offset = position == 0 ? 0 : position - 1;
    throw Error(where_ + ": " + position_in(text_, offset, place_) + ": not JSON: " + complaint(error.what()));
  }

 private:
  bool add(json value) {
    if (builds_) tree_.add(std::move(value));
    return true;
  }

  bool open(json container) {
    if (depth_++ == kMaxJsonDepth) {
      throw Error(where_ + ": nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    }
    if (builds_) tree_.open(std::move(container));
    return true;
  }

  bool close() {
    if (--depth_ == 0) builds_ = true;  // what ends is what holds the members
    if (builds_) tree_.close();
    return true;
  }

  std::string_view text_;
  std::string where_;
  TextPlace place_;
  RepeatedNames repeated_ = RepeatedNames::kLastCounts;
  std::optional<std::string_view> only_;
  std::size_t depth_ = 0;
  bool builds_ = true;  // false inside a member that is not asked for
  JsonTree tree_;
};

json parse_with(ValueBuilder builder, std::string_view text, std::string_view where, const TextPlace& place) {
  // The parser takes a zero byte for the end of the text, and would not see what stands behind it.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    throw Error(std::string(where) + ": " + position_in(text, zero, place) + ": not JSON: a zero byte");
  }
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace

std::string read_text_file(const std::filesystem::path& path, FileKind kind) {
  InputFile file = InputFile::open(path, kind);
  std::string text;
  constexpr std::size_t kStep = 1U << 16U;
  // The size is a hint only: a pipe has none, and files under /proc say 0.
  for (std::size_t step = std::max<std::size_t>(kStep, file.size() + 1);; step = kStep) {
    const std::size_t begin = text.size();
    text.resize(begin + step);
    const std::size_t count = file.read(std::as_writable_bytes(std::span(text).subspan(begin)));
    text.resize(begin + count);
    if (count < step) break;
  }
  if (text.empty()) throw Error(file.label() + ": is empty");
  refuse_lfs_pointer(text, file.label());
  return text;
}

void TextPlace::pass(std::string_view text) {
  const auto starts_character = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; };
  if (const auto newlines = std::count(text.begin(), text.end(), '\n'); newlines > 0) {
    line += newlines;
    column = 1;
    text.remove_prefix(text.rfind('\n') + 1);
  }
  column += std::count_if(text.begin(), text.end(), starts_character);
}

json parse_json(std::string_view text, std::string_view where, RepeatedNames repeated, const TextPlace& place) {
  return parse_with(ValueBuilder(text, where, repeated, place), text, where, place);
}

json parse_json_member(std::string_view text, std::string_view where, std::string_view name) {
  const json root = parse_with(ValueBuilder(text, where, name), text, where, {});
  if (!root.is_object()) throw Error(std::string(where) + ": found " + shown(root) + "; expected an object");
  return root.value(name, json());
}

json parse_json_file(const std::filesystem::path& path, RepeatedNames repeated) {
  return parse_json(read_text_file(path), label_of(path), repeated);
}

}  // namespace rometrace
