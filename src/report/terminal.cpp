#include "rometrace/report/terminal.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>
#include <system_error>
#include <vector>

#include "report/display_text.hpp"
#include "report/finding.hpp"
#include "report/palette.hpp"

namespace rometrace {

namespace {

constexpr int kNarrowest = 20;
constexpr int kMarkColumns = 2;  // "*" or a space after the token, and a space
constexpr int kWidestCell = 5;
constexpr int kNumberFrom = 4;     // narrowest cell that holds a percentage
constexpr int kNumberColumns = 3;  // "100"

std::string spaces(std::int64_t count) {
  return std::string(static_cast<std::size_t>(std::max<std::int64_t>(0, count)), ' ');
}

/// Where things stand in a panel, in columns; the same for all panels of a trace.
struct Layout {
  int label = 0;           ///< tokens, right-aligned
  int cell = 1;            ///< width of a cell
  std::int64_t group = 1;  ///< layers merged in a cell
  std::int64_t cells = 0;  ///< cells in a row

  int map_begin() const { return label + kMarkColumns; }
  bool holds_numbers() const { return cell >= kNumberFrom; }
};

Layout lay_out(int longest_label, std::int64_t layers, int columns) {
  constexpr int kShortestLabel = 6;  // room for the axis title too
  constexpr int kLongestLabel = 24;
  constexpr std::int64_t kComfortableCell = 3;
  const auto left_over = std::max<std::int64_t>(0, columns - kMarkColumns - layers * kComfortableCell);
  const int most = std::clamp(static_cast<int>(left_over), std::max(kShortestLabel, columns / 4), kLongestLabel);

  Layout layout;
  layout.label = std::clamp(longest_label, kShortestLabel, most);
  const std::int64_t room = columns - layout.map_begin();
  layout.cell = static_cast<int>(std::clamp<std::int64_t>(room / layers, 1, kWidestCell));
  layout.group = (layers + room - 1) / room;
  layout.cells = (layers + layout.group - 1) / layout.group;
  return layout;
}

/// The shades of one panel.
struct Scale {
  double low = 0;   ///< lightest: low_score
  double high = 0;  ///< darkest: the panel's largest score, if that is above low

  bool is_flat() const { return !(high > low); }
  double shade(double score) const { return is_flat() ? 0 : std::clamp((score - low) / (high - low), 0.0, 1.0); }
};

/// The largest finite of `count` scores from `first` on; NaN if none is finite.
double largest(const double* first, std::int64_t count) {
  double result = std::numeric_limits<double>::quiet_NaN();
  for (const double* score = first; score != first + count; ++score) {
    if (std::isfinite(*score) && !(result >= *score)) {
      result = *score;
    }
  }
  return result;
}

/// `count` cells' scores of the token's row, layers merged as the layout says.
std::vector<double> merged_row(const CausalGrid& grid, const Trace& trace, std::int64_t token, const Layout& layout) {
  std::vector<double> cells;
  const double* row = grid.scores.data() + token * trace.layers;
  for (std::int64_t layer = 0; layer < trace.layers; layer += layout.group) {
    cells.push_back(largest(row + layer, std::min(layout.group, trace.layers - layer)));
  }
  return cells;
}

/// Renders the panels of one trace.
class HeatMaps {
 public:
  HeatMaps(const Trace& trace, const TracePrompt& prompt, const TokenTexts& texts, const TerminalStyle& style)
      : trace_(trace), prompt_(prompt), texts_(texts), style_(style), layout_(lay_out_tokens()) {}

  std::string introduction() const {
    std::string text = "Probability of " + quoted_token(texts_.answer, style_) +
                       (layout_.holds_numbers() ? " in percent" : "") +
                       " when the subject (*) is corrupted and one thing is restored.";
    if (layout_.group > 1) {
      text += " Each column is the largest of " + std::to_string(layout_.group) + " layers.";
    }
    return wrap(text, style_.columns);
  }

  std::string panel(const CausalGrid& grid) const {
    assert(static_cast<std::int64_t>(grid.scores.size()) == trace_.tokens * trace_.layers);
    const double highest = largest(grid.scores.data(), trace_.tokens * trace_.layers);
    const Scale scale{trace_.low_score, highest};
    std::string result = title(grid);
    for (std::int64_t token = 0; token < trace_.tokens; ++token) {
      result += row(grid, token, scale);
    }
    return result + axis() + legend(grid.kind, scale);
  }

 private:
  Layout lay_out_tokens() const {
    int longest = 0;
    for (const auto& token : texts_.prompt) {
      longest = std::max(longest, display(token, label_style()).columns);
    }
    return lay_out(longest, trace_.layers, style_.columns);
  }

  DisplayStyle label_style() const { return {.unicode = style_.unicode, .visible_spaces = true}; }

  std::string title(const CausalGrid& grid) const {
    const std::string kind(to_string(grid.kind));
    const std::string what = grid.kind == Kind::kState ? "the block's output"
                             : grid.kind == Kind::kMlp ? "the MLP's output"
                                                       : "the attention's output";
    const std::string where =
        grid.window > 1 ? " in " + std::to_string(grid.window) + " layers around each layer" : " at one layer";
    const std::string text = wrap(kind + ": " + what + " restored" + where, style_.columns);
    return style_.color ? kBold + text.substr(0, kind.size()) + kResetColor + text.substr(kind.size()) : text;
  }

  std::string row(const CausalGrid& grid, std::int64_t token, const Scale& scale) const {
    const auto index = static_cast<std::size_t>(token);
    const auto label = display_head(texts_.prompt[index], layout_.label, label_style());
    const bool in_subject = index >= prompt_.subject_range.begin && index < prompt_.subject_range.end;
    std::string result = spaces(layout_.label - label.columns) + label.text + (in_subject ? "* " : "  ");
    std::string color;
    for (const double score : merged_row(grid, trace_, token, layout_)) {
      append_cell(result, color, grid.kind, score, scale);
    }
    if (!style_.color) {
      result.erase(result.find_last_not_of(' ') + 1);
    }
    return result + (color.empty() ? "" : kResetColor) + "\n";
  }

  /// `color` is the one in use, or empty; it is written only where it changes.
  void append_cell(std::string& line, std::string& color, Kind kind, double score, const Scale& scale) const {
    if (style_.color) {
      const std::string wanted =
          std::isfinite(score) ? cell_color(kind, scale.shade(score), style_.true_color) : kResetColor;
      line += wanted == color ? "" : wanted;
      color = wanted;
    }
    line += cell_text(score, scale);
  }

  std::string cell_text(double score, const Scale& scale) const {
    if (layout_.holds_numbers()) {
      const std::string number =
          std::isfinite(score) ? std::to_string(std::lround(100 * std::clamp(score, 0.0, 1.0))) : "?";
      return aligned(number);
    }
    const std::string symbol = !std::isfinite(score) ? "?" : style_.color ? " " : tenth(scale.shade(score));
    return aligned(symbol);
  }

  static std::string tenth(double shade) {
    const long digit = std::min(9L, static_cast<long>(10 * shade));
    return digit == 0 ? "." : std::to_string(digit);
  }

  /// `text` in a cell: numbers with their last digits below each other, a single character in the middle.
  std::string aligned(const std::string& text) const {
    const auto size = static_cast<int>(text.size());
    const int end = layout_.holds_numbers() ? number_end() : (layout_.cell + 1) / 2;
    return spaces(end - size) + text + spaces(layout_.cell - std::max(end, size));
  }

  int number_end() const { return (layout_.cell + kNumberColumns) / 2; }

  /// Numbers of layers under their columns, as close as they fit, a round number of layers apart.
  std::string axis() const {
    const std::string name = "layer";
    std::string line = spaces(layout_.label - static_cast<int>(name.size())) + name + spaces(kMarkColumns);
    const auto step = tick_step();
    for (std::int64_t layer = 0; layer < trace_.layers; layer += step) {
      const std::string tick = std::to_string(layer);
      const auto size = static_cast<int>(tick.size());
      const auto cell_begin = layout_.map_begin() + layer / layout_.group * layout_.cell;
      const int inside = layout_.holds_numbers() ? number_end() - size : std::max(0, (layout_.cell - size + 1) / 2);
      const auto begin = cell_begin + inside;
      if (begin + size > style_.columns) {
        break;
      }
      line += spaces(begin - static_cast<std::int64_t>(line.size())) + tick;
    }
    return line + "\n";
  }

  std::int64_t tick_step() const {
    const auto widest = static_cast<std::int64_t>(std::to_string(trace_.layers - 1).size());
    for (std::int64_t power = 1; power < trace_.layers; power *= 10) {
      for (const std::int64_t factor : {1, 2, 5}) {
        const std::int64_t step = factor * power;
        if (step / layout_.group * layout_.cell > widest) {
          return step;
        }
      }
    }
    return trace_.layers;
  }

  std::string legend(Kind kind, const Scale& scale) const {
    const int indent = style_.columns >= 2 * layout_.map_begin() + kNarrowest ? layout_.map_begin() : 0;
    const std::string low = in_unit(scale.low) + " corrupted";
    if (scale.is_flat()) {
      return wrapped(low + ", and no cell is above it", indent);
    }
    const std::string high = in_unit(scale.high) + " largest";
    if (!style_.color) {
      return wrapped(layout_.holds_numbers() ? low + ", " + high : ". is " + low + ", 9 is " + high, indent);
    }
    constexpr int kBarColumns = 16;
    const auto words = static_cast<int>(low.size() + high.size()) + 2;
    if (indent + words + kBarColumns > style_.columns) {
      return wrapped("light is " + low + ", dark is " + high, indent);
    }
    return spaces(indent) + unbroken(low) + " " + bar(kind, kBarColumns) + " " + unbroken(high) + "\n";
  }

  /// In the unit of the cells.
  std::string in_unit(double score) const { return layout_.holds_numbers() ? percentage(score) : probability(score); }

  static std::string unbroken(std::string text) {
    std::replace(text.begin(), text.end(), kNoBreak, ' ');
    return text;
  }

  std::string wrapped(const std::string& text, int indent) const {
    return spaces(indent) + wrap(text, style_.columns - indent);
  }

  std::string bar(Kind kind, int columns) const {
    std::string result;
    for (int i = 0; i < columns; ++i) {
      result += cell_color(kind, static_cast<double>(i) / (columns - 1), style_.true_color) + " ";
    }
    return result + kResetColor;
  }

  const Trace& trace_;
  const TracePrompt& prompt_;
  const TokenTexts& texts_;
  const TerminalStyle& style_;
  Layout layout_;
};

std::string clock_time(double seconds) {
  const auto total = static_cast<std::int64_t>(std::ceil(seconds));
  const auto two_digits = [](std::int64_t value) { return (value < 10 ? "0" : "") + std::to_string(value); };
  const auto hours = total / 3600;
  const auto minutes = total / 60 % 60;
  const std::string end = ":" + two_digits(total % 60);
  return hours > 0 ? std::to_string(hours) + ":" + two_digits(minutes) + end : std::to_string(minutes) + end;
}

constexpr double kLongestLeft = 1e7;  // seconds; beyond months, an estimate means nothing

/// "12.3", "1.23", "123".
std::string three_digits(double value) {
  std::array<char, 32> digits{};
  const int decimals = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  const auto [end, error] =
      std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::fixed, decimals);
  return {digits.data(), error == std::errc() ? end : digits.data()};
}

/// ", 0:12 left"; empty while that cannot be known.
std::string time_left(std::int64_t done, std::int64_t total, double seconds) {
  if (done <= 0 || done >= total || !std::isfinite(seconds) || seconds < 0) {
    return "";
  }
  const double left = seconds / static_cast<double>(done) * static_cast<double>(total - done);
  return left < kLongestLeft ? ", " + clock_time(left) + " left" : "";
}

std::string progress_bar(double part, int columns, bool unicode) {
  const auto filled = static_cast<int>(part * columns);
  std::string bar;
  for (int i = 0; i < columns; ++i) {
    bar += i < filled ? (unicode ? "█" : "#") : (unicode ? "░" : "-");
  }
  return bar;
}

}  // namespace

std::string render_heat_maps(const Trace& trace, const TracePrompt& prompt, const TokenTexts& texts,
                             const TerminalStyle& style) {
  assert(static_cast<std::int64_t>(texts.prompt.size()) == trace.tokens && trace.layers > 0);
  TerminalStyle usable = style;
  usable.columns = std::max(kNarrowest, style.columns);
  const HeatMaps maps(trace, prompt, texts, usable);
  std::string result = trace.grids.empty() ? "" : maps.introduction() + "\n";
  for (const auto& grid : trace.grids) {
    result += maps.panel(grid) + "\n";
  }
  return result + render_findings(trace, prompt, texts, usable);
}

std::string render_progress(std::int64_t done, std::int64_t total, double seconds, const TerminalStyle& style) {
  constexpr int kWidestBar = 40;
  constexpr int kNarrowestBar = 4;
  // A full line would make some terminals wrap.
  const int columns = std::max(1, style.columns - 1);
  const auto known_total = std::max<std::int64_t>(0, total);
  const auto known_done = std::clamp<std::int64_t>(done, 0, known_total);
  const double part = known_total > 0 ? static_cast<double>(known_done) / static_cast<double>(known_total) : 0;
  const auto count = std::to_string(static_cast<int>(100 * part)) + " %";
  const auto text = count + time_left(known_done, known_total, seconds);
  const int room = columns - static_cast<int>(text.size()) - 1;
  if (room < kNarrowestBar) {
    return (room >= -1 ? text : count).substr(0, static_cast<std::size_t>(columns));
  }
  return progress_bar(part, std::min(room, kWidestBar), style.unicode) + " " + text;
}

std::string batch_progress_text(const BatchCounts& before, const BatchCounts& counts, std::int64_t total, double part,
                                double seconds) {
  const auto newly = counts.done() - before.done();
  auto text = std::to_string(counts.done()) + " of " + std::to_string(total) + " facts";
  if (newly > 0 && seconds > 0) {
    const double rate = static_cast<double>(newly) / seconds;
    text += ", " + (rate >= 1 ? three_digits(rate) + " a second" : three_digits(1 / rate) + " s each");
  }
  const double reached = static_cast<double>(newly) + part;
  const double left = static_cast<double>(total - counts.done()) - part;
  if (reached > 0.1 && left > 0 && seconds / reached * left < kLongestLeft) {
    text += ", " + clock_time(seconds / reached * left) + " left";
  }
  return text + "; " + std::to_string(counts.traced) + " " + std::string(counts.verb) + ", " +
         std::to_string(counts.skipped) + " skipped, " + std::to_string(counts.failed) + " failed";
}

std::string render_batch_progress(const BatchCounts& before, const BatchCounts& counts, std::int64_t total, double part,
                                  double seconds, const TerminalStyle& style) {
  constexpr int kWidestBar = 20, kNarrowestBar = 4;
  const int columns = std::max(1, style.columns - 1);
  const auto text = batch_progress_text(before, counts, total, part, seconds);
  const double share =
      total > 0 ? std::clamp((static_cast<double>(counts.done()) + part) / static_cast<double>(total), 0.0, 1.0) : 1;
  const int room = columns - static_cast<int>(text.size()) - 1;
  if (room < kNarrowestBar) return text.substr(0, static_cast<std::size_t>(columns));
  return progress_bar(share, std::min(room, kWidestBar), style.unicode) + " " + text;
}

}  // namespace rometrace
