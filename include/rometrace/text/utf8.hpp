#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace rometrace {

/// Length in bytes (1 to 4) of the well-formed UTF-8 character at the front of `text`; 0 if there is none.
std::size_t utf8_character_length(std::string_view text);

/// Byte offset of the first byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7: no surrogates, no
/// overlong forms, nothing above U+10FFFF); nothing if all of `text` is well formed.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

/// `bytes` with each maximal ill-formed part replaced by U+FFFD, as Rust's `String::from_utf8_lossy`, Hugging Face's
/// decoders and Python's `errors="replace"` do.
std::string to_valid_utf8(std::string_view bytes);

}  // namespace rometrace
