#include "report/progress_words.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <system_error>

namespace rometrace {

std::string clock_time(double seconds) {
  const auto total = static_cast<std::int64_t>(std::ceil(seconds));
  const auto two_digits = [](std::int64_t value) { return (value < 10 ? "0" : "") + std::to_string(value); };
  const auto hours = total / 3600;
  const auto minutes = total / 60 % 60;
  const std::string end = ":" + two_digits(total % 60);
  return hours > 0 ? std::to_string(hours) + ":" + two_digits(minutes) + end : std::to_string(minutes) + end;
}

std::string three_digits(double value) {
  std::array<char, 32> digits{};
  const int decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  const auto [end, error] =
      std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::fixed, decimals);
  return {digits.data(), error == std::errc() ? end : digits.data()};
}

std::string progress_bar(double part, int columns, bool unicode) {
  const auto filled = static_cast<int>(part * columns);
  std::string bar;
  for (int i = 0; i < columns; ++i) {
    bar += i < filled ? (unicode ? "█" : "#") : (unicode ? "░" : "-");
  }
  return bar;
}

std::string behind_bar(double part, const std::string& text, int columns, bool unicode) {
  constexpr int kWidestBar = 20, kNarrowestBar = 4;
  const int width = std::max(1, columns - 1);
  const int room = width - static_cast<int>(text.size()) - 1;
  if (room < kNarrowestBar) return text.substr(0, static_cast<std::size_t>(width));
  return progress_bar(part, std::min(room, kWidestBar), unicode) + " " + text;
}

}  // namespace rometrace
