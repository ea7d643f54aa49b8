#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace rometrace {

/// `bytes` in GPT-2's byte alphabet, which writes each byte as one printable character: printable Latin-1 stands for
/// itself, the other 68 bytes become U+0100, U+0101, ... in order (a space is "Ġ"). Source: GPT-2's
/// `bytes_to_unicode`.
std::string to_byte_alphabet(std::string_view bytes);

/// The bytes that `token` writes in the byte alphabet; nothing if it holds a character that is not of the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view token);

}  // namespace rometrace
