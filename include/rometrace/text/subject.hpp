#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "rometrace/text/byte_range.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// Of a prompt or a subject in a message.
inline constexpr std::size_t kShownTextBytes = 200;

/// Token positions [begin, end).
struct TokenRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// Which of the places where a prompt has its subject's text is meant.
struct SubjectPlace {
  enum class Which { kFirst, kLast, kNumber, kBytes };

  Which which = Which::kFirst;
  std::size_t number = 1;  ///< from 1, for kNumber
  ByteRange bytes = {};    ///< for kBytes

  /// Reads "first", "last", a number from 1, or "B:E", the bytes from B to before E. Throws Error.
  static SubjectPlace parse(std::string_view text);
  bool operator==(const SubjectPlace&) const = default;
};

/// Stands in a template where the subject goes.
inline constexpr std::string_view kSubjectSlot = "{}";

/// How often a text has `part`, counted without overlaps from the left.
std::size_t occurrences_of(std::string_view part, std::string_view text);

/// The bytes of `prompt` at which `subject` stands: its first occurrence, or the one that `place` names. Occurrences
/// may overlap. Throws Error if the subject is empty, or is not there.
ByteRange find_subject(std::string_view prompt, std::string_view subject, const SubjectPlace& place = {});

/// A prompt with the subject in place.
struct PlacedSubject {
  std::string prompt;
  ByteRange subject;  ///< bytes of `prompt`
};

/// A subject in its place, and what the choice of the place left open.
struct SubjectChoice {
  PlacedSubject placed;
  bool slot_and_text = false;   ///< the slot was filled, and the subject's text stands elsewhere as a word
  std::size_t occurrences = 1;  ///< how often the text has a subject whose first occurrence was taken unasked
};

/// The subject in the place that is named; else in the text's one slot; else at its first occurrence. Throws Error if
/// the subject is empty or is not there.
SubjectChoice place_subject(std::string_view text, std::string_view subject, const std::optional<SubjectPlace>& place);

/// `text` with `subject` in the place of its one slot. Throws Error if it has another number of slots.
PlacedSubject fill_slot(std::string_view text, std::string_view subject);

/// The tokens that share a byte with `subject`; `tokens` are the prompt's. Works on bytes, so a character that is split
/// over two tokens is no problem (reference: `find_token_range`, which compares decoded strings and breaks there).
/// Throws Error if no token does.
TokenRange tokens_of_subject(std::span<const Token> tokens, std::string_view prompt, const ByteRange& subject);

/// The tokens of the first occurrence of `subject`. Throws Error as the two above.
TokenRange find_subject(std::span<const Token> tokens, std::string_view prompt, std::string_view subject);

}  // namespace rometrace
