#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "rometrace/text/byte_range.hpp"

namespace rometrace {

/// The first bytes of `text` that look like `part`, as people see it: with other white space, quotes or dashes,
/// characters that are not seen, letters composed or not, wide, of another alphabet or in other capitals. White space
/// at the ends of `part` does not count. Nothing if there are none, or either is not UTF-8.
std::optional<ByteRange> find_alike(std::string_view text, std::string_view part);

/// Where `found` differs from `expected` first: "code point 6 is U+00A0 NO-BREAK SPACE, not U+0020 SPACE". Both are
/// UTF-8; empty if they are equal.
std::string first_difference(std::string_view found, std::string_view expected);

/// For the message that `part` is not in `text`: `; there is "...", whose code point 6 is ...` where `text` has what
/// looks like it; else empty.
std::string alike_words(std::string_view text, std::string_view part);

/// For the message that `found` is not `expected`: ` (its code point 6 is ...)` where both look the same, but for white
/// space at their ends; else empty.
std::string unlike_words(std::string_view found, std::string_view expected);

}  // namespace rometrace
