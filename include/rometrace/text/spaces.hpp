#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "rometrace/text/aligned_text.hpp"

namespace rometrace {

/// How SentencePiece's vocabularies write a space: "▁", U+2581. In a text this character is a space to them too.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

inline bool begins_with_space(std::string_view text) {
  return text.starts_with(' ') || text.starts_with(kSpaceMark);
}

/// Which stretches of a text get a space in front, unless they begin with one. A stretch is all of the text, or what
/// lies between added tokens.
enum class FirstSpace {
  kNowhere,
  kOfTheText,  ///< the stretch that the text begins with
  kOfEachStretch,
};

/// Whether `rule` is for the stretch that begins at byte `begin` of the text.
bool is_for_stretch(FirstSpace rule, std::size_t begin);

/// What is put before a text; it comes from no byte of it. An empty text stays empty.
enum class InFront { kNothing, kSpace };

/// `text`, with a space put before it where asked.
AlignedText with_first_space(std::string_view text, InFront in_front);

/// The same with each space, the one in front too, written as "▁".
AlignedText mark_spaces(std::string_view text, InFront in_front);

/// `text` with a space for each "▁".
std::string unmark_spaces(std::string_view text);

}  // namespace rometrace
