#pragma once

#include <string>

namespace rometrace {

/// "0:12", "1:02:03": seconds, rounded up.
std::string clock_time(double seconds);

inline constexpr double kLongestLeft = 1e7;  ///< seconds; beyond months, an estimate of time left means nothing

/// "12.3", "1.23", "123".
std::string three_digits(double value);

/// A bar of which `part`, from 0 to 1, is filled.
std::string progress_bar(double part, int columns, bool unicode);

/// `text`, ASCII, behind a bar as wide as there is room for, at most 20 columns, in a line narrower than `columns`.
std::string behind_bar(double part, const std::string& text, int columns, bool unicode);

}  // namespace rometrace
