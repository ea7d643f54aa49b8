#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// Of a prompt or a subject in a message.
inline constexpr std::size_t kShownTextBytes = 200;

/// Token positions [begin, end).
struct TokenRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// The tokens that share a byte with the first occurrence of `subject` in `prompt`; `tokens` are the prompt's.
/// Works on bytes, so a character that is split over two tokens is no problem (reference: `find_token_range`, which
/// compares decoded strings and breaks there). Throws Error if the subject is empty or not in the prompt.
TokenRange find_subject(std::span<const Token> tokens, std::string_view prompt, std::string_view subject);

}  // namespace rometrace
