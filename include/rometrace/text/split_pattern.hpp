#pragma once

#include <string>
#include <string_view>

namespace rometrace {

/// A pattern of a tokenizer.json (Oniguruma's, {"Regex": ...}) as PCRE2 takes it, with the same matches. Letters,
/// numbers, marks, punctuation, symbols and white space are those of Unicode 16 or of PCRE2's own tables, whichever
/// knows more. Throws Error naming the construct that has another meaning in PCRE2, or none, and its byte; `where`
/// opens the message.
std::string to_pcre2(std::string_view pattern, const std::string& where);

/// A pattern for PCRE2 that matches `text` itself.
std::string literal_pattern(std::string_view text);

}  // namespace rometrace
