#pragma once

#include <string>

#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// Escape sequences (ECMA-48 SGR) for a terminal.
inline constexpr const char* kResetColor = "\x1b[0m";
inline constexpr const char* kBold = "\x1b[1m";
inline constexpr const char* kDim = "\x1b[2m";

/// The sequence that sets background and foreground of a cell: the paper's hues (state purple, mlp green, attn red) and
/// others for the further kinds, from a light tint for `shade` 0 to a dark tone for 1, and text that is readable on it.
/// Light to dark whatever the terminal's own background is, so that a picture means the same on both.
std::string cell_color(Kind kind, double shade, bool true_color);

}  // namespace rometrace
