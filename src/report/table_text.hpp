#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "rometrace/summary/summary.hpp"

namespace rometrace {

/// A fraction in percent with two decimals, without the sign: the heads of tables have it.
std::string percent(double value);

/// `text` with spaces before or behind it, `columns` wide, or wider if it is.
std::string right(std::string_view text, int columns);
std::string left(std::string_view text, int columns);

/// "[ 69.78,  70.81]" in percent, 16 columns; empty without one.
std::string interval(const std::optional<Bounds>& value);

/// The bootstrap's; the normal one where there is none.
std::optional<Bounds> interval_of(const Estimate& estimate);

/// How interval_of() an estimate comes about, without kNoBreak: "bootstrap, 1000 replicates", "normal".
std::string interval_words(const SummaryConfig& config);

/// A table's line: without spaces at its end, with "\n".
std::string trimmed(std::string line);

/// What is patched: "the MLP's output"; of kinds that are not known "its output".
std::string_view words_for_kind(std::string_view kind);

/// " at one layer", " in 10 layers around each layer".
std::string layers_of(std::int64_t window);

}  // namespace rometrace
