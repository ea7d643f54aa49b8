#include "rometrace/report/terminal.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

#include "report/directions.hpp"
#include "report/display_text.hpp"
#include "report/edits_text.hpp"
#include "report/finding.hpp"
#include "report/neuron_text.hpp"
#include "report/palette.hpp"
#include "report/progress_words.hpp"

namespace rometrace {

namespace {

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
  double light = 0;      ///< lightest: what an unpatched run has
  double dark = 0;       ///< darkest: the panel's strongest
  bool falls = false;    ///< the strongest are the lowest
  std::string at_light;  ///< in words, for wrap()
  std::string at_dark;

  bool is_flat() const { return falls ? !(dark < light) : !(dark > light); }
  double shade(double value) const { return is_flat() ? 0 : std::clamp((value - light) / (dark - light), 0.0, 1.0); }
};

/// The largest finite value or, where `lowest`, the smallest; NaN if none is finite.
double strongest(std::span<const double> values, bool lowest) {
  double result = std::numeric_limits<double>::quiet_NaN();
  for (const double value : values) {
    if (std::isfinite(value) && !(lowest ? result <= value : result >= value)) result = value;
  }
  return result;
}

/// The finite value that is furthest from 0; NaN if none is finite.
double furthest(std::span<const double> values) {
  double result = std::numeric_limits<double>::quiet_NaN();
  for (const double value : values) {
    if (std::isfinite(value) && !(std::abs(result) >= std::abs(value))) result = value;
  }
  return result;
}

/// One line of a panel.
struct PanelRow {
  DisplayText label;
  bool marked = false;
  std::vector<double> values;  ///< [L]
};

/// A number for each layer of each row.
struct Panel {
  std::string name;   ///< which the title begins with
  std::string title;  ///< what follows, for wrap()
  Kind kind = Kind::kState;
  Scale scale;  ///< of differences: of how far they are from 0
  std::vector<PanelRow> rows;
  bool is_difference = false;  ///< values are below 0 as well as above
};

/// Renders the panels of one trace.
class HeatMaps {
 public:
  HeatMaps(const TraceRecord& record, const TerminalStyle& style)
      : record_(record),
        trace_(record.trace),
        style_(style),
        noising_(record.options.direction == Direction::kNoising),
        layout_(lay_out_labels()) {}

  /// Of all panels but a knockout's, which stands for itself.
  std::string introduction() const {
    const auto corruption = corruption_words(record_, style_);
    const bool by_token = corruption.what == "prompt";
    const auto corrupted = "the " + std::string(corruption.what) + (by_token ? " is " : " (*) is ") + corruption.how +
                           (by_token ? " (*: where they differ)" : "");
    std::string text = "Probability of " + quoted_answer(record_, style_) +
                       (layout_.holds_numbers() ? " in percent" : "") + " when " +
                       (noising_ ? "the prompt is clean and one thing is corrupted: taken from a run where " + corrupted
                                 : corrupted + " and one thing is restored") +
                       ".";
    if (layout_.group > 1) {
      text += std::string(" Each column is the ") + (noising_ ? "lowest" : "largest") + merged() + ".";
    }
    if (is_approximate(record_.run)) {
      text += " These scores are an approximation (attribution patching); --engine sweep computes them.";
    }
    if (const auto edits = edits_text(to_json(record_.model)); !edits.empty()) text += " The model is " + edits + ".";
    return wrap(text, style_.columns);
  }

  /// How much more a cell does in company, of a kind with a number for each token and layer.
  std::string interaction(std::size_t which) const { return render(panel_of_interaction(which)); }

  std::string panel(const CausalGrid& grid) const {
    return render(grid.kind == Kind::kHead       ? panel_of_heads(grid)
                  : grid.kind == Kind::kKnockout ? panel_of_knockout(grid)
                                                 : panel_of_tokens(grid));
  }

 private:
  Layout lay_out_labels() const {
    int longest = 0;
    for (const auto& token : record_.texts.prompt) {
      longest = std::max(longest, display(token, label_style()).columns);
    }
    for (const auto& grid : trace_.grids) {
      if (grid.kind == Kind::kHead) longest = std::max(longest, head_label(grid.heads - 1, kLongestName).columns);
      for (const auto& group : grid.groups) longest = std::max(longest, static_cast<int>(group.name.size()));
    }
    return lay_out(longest, trace_.layers, style_.columns);
  }

  DisplayStyle label_style() const { return {.unicode = style_.unicode, .visible_spaces = true}; }

  static DisplayText head_label(std::int64_t head, int columns) {
    const auto number = std::to_string(head);
    const auto label = display("head " + number);
    return label.columns <= columns ? label : display(number);
  }

  std::string_view changed() const { return noising_ ? "corrupted" : "restored"; }

  static std::string where(const CausalGrid& grid) {
    return grid.window > 1 ? " in " + std::to_string(grid.window) + " layers around each layer" : " at one layer";
  }

  std::string merged() const { return " of " + std::to_string(layout_.group) + " layers"; }

  static std::string_view what(Kind kind) {
    return kind == Kind::kMlp    ? "the MLP's output"
           : kind == Kind::kAttn ? "the attention's output"
                                 : "the block's output";
  }

  static std::string_view held(Kind kind) {
    return kind == Kind::kStateMlpSevered    ? ", the position's MLP outputs held"
           : kind == Kind::kStateAttnSevered ? ", the position's attention outputs held"
                                             : "";
  }

  Scale scale_of(std::span<const double> scores) const {
    const double unpatched = noising_ ? trace_.high_score : trace_.low_score;
    const double best = strongest(scores, noising_);
    return {unpatched, best, noising_, in_unit(unpatched) + (noising_ ? " clean" : " corrupted"),
            in_unit(best) + (noising_ ? " lowest" : " largest")};
  }

  /// In the unit of the cells.
  std::string in_unit(double score) const { return layout_.holds_numbers() ? percentage(score) : probability(score); }

  std::span<const double> layers_of(const std::vector<double>& scores, std::size_t row) const {
    const auto L = static_cast<std::size_t>(trace_.layers);
    return std::span(scores).subspan(row * L, L);
  }

  bool is_corrupted(std::size_t position) const {
    const auto& prompt = record_.prompt;
    if (record_.options.corruption.method == CorruptionMethod::kTokens && !prompt.counter_ids.empty()) {
      return prompt.counter_ids[position] != prompt.token_ids[position];
    }
    return position >= prompt.subject_range.begin && position < prompt.subject_range.end;
  }

  Panel panel_of_tokens(const CausalGrid& grid) const {
    Panel panel{std::string(words_of(grid.kind)), "", grid.kind, scale_of(grid.scores), {}, false};
    panel.title =
        std::string(what(grid.kind)) + " " + std::string(changed()) + where(grid) + std::string(held(grid.kind));
    add_token_rows(panel, grid, grid.scores);
    return panel;
  }

  Panel panel_of_interaction(std::size_t which) const {
    const auto& grid = trace_.noising[which];
    const auto& values = trace_.interaction[which].values;
    Panel panel{std::string(words_of(grid.kind)) + ", interaction", "", grid.kind, {}, {}, /*is_difference=*/true};
    panel.title = "what corrupting " + std::string(what(grid.kind)) + where(grid) +
                  " takes away, less what restoring it brings back";
    const double largest = furthest(values);
    panel.scale.dark = std::isfinite(largest) ? std::abs(largest) : 0;
    add_token_rows(panel, grid, values);
    return panel;
  }

  /// A row for each of the grid's positions; `values` are laid out as its scores.
  void add_token_rows(Panel& panel, const CausalGrid& grid, const std::vector<double>& values) const {
    for (std::size_t row = 0; row < grid.rows(); ++row) {
      const auto position = static_cast<std::size_t>(grid.positions[row]);
      const auto of_row = layers_of(values, row);
      panel.rows.push_back({display_head(record_.texts.prompt[position], layout_.label, label_style()),
                            is_corrupted(position),
                            {of_row.begin(), of_row.end()}});
    }
  }

  /// Of the position that has the strongest.
  Panel panel_of_heads(const CausalGrid& grid) const {
    const auto best = strongest_cell(grid, trace_.layers, noising_, trace_.tokens);
    const auto row = best ? best->row : 0;
    const auto position = grid.positions[row];
    const auto L = static_cast<std::size_t>(trace_.layers), H = static_cast<std::size_t>(grid.heads);
    const auto scores = std::span(grid.scores).subspan(row * L * H, L * H);
    Panel panel{std::string(words_of(grid.kind)), "", grid.kind, scale_of(scores), {}, false};
    panel.title = "one head's output at " +
                  quoted_token(record_.texts.prompt[static_cast<std::size_t>(position)], style_) + " (position " +
                  std::to_string(position) + (grid.rows() > 1 ? ", which has the strongest) " : ") ") +
                  std::string(changed()) + where(grid);
    for (std::size_t head = 0; head < H; ++head) {
      PanelRow& line = panel.rows.emplace_back();
      line.label = head_label(static_cast<std::int64_t>(head), layout_.label);
      for (std::size_t layer = 0; layer < L; ++layer) line.values.push_back(scores[layer * H + head]);
    }
    return panel;
  }

  /// Cells are changes relative to the clean run.
  Panel panel_of_knockout(const CausalGrid& grid) const {
    Panel panel{std::string(words_of(grid.kind)), "", grid.kind, {}, {}, false};
    panel.title = std::string("attention from the last token ") +
                  (trace_.answer_ids.size() > 1 ? "and the answer's tokens " : "") + "cut" + where(grid);
    double highest = 0;
    for (std::size_t row = 0; row < grid.rows(); ++row) {
      PanelRow& line = panel.rows.emplace_back();
      line.label = display_head(grid.groups[row].name, layout_.label, {.unicode = style_.unicode});
      for (const double score : layers_of(grid.scores, row)) {
        line.values.push_back((score - trace_.high_score) / trace_.high_score);
      }
      const double largest = strongest(line.values, /*lowest=*/false);
      if (largest > highest) highest = largest;
    }
    panel.scale = {highest, -1, /*falls=*/true, signed_percent(highest) + kNoBreak + "%" + kNoBreak + "change",
                   std::string("-100") + kNoBreak + "%"};
    return panel;
  }

  std::string render(const Panel& panel) const {
    std::string result = title(panel);
    for (const auto& row : panel.rows) result += line_of(row, panel);
    return result + axis() + legend(panel);
  }

  std::string title(const Panel& panel) const {
    const std::string text = wrap(panel.name + ": " + panel.title, style_.columns);
    const auto name = panel.name.size();
    return style_.color ? kBold + text.substr(0, name) + kResetColor + text.substr(name) : text;
  }

  /// The row's cells, layers merged as the layout says.
  std::vector<double> cells_of(const PanelRow& row, const Panel& panel) const {
    std::vector<double> cells;
    for (std::int64_t layer = 0; layer < trace_.layers; layer += layout_.group) {
      const auto count = std::min(layout_.group, trace_.layers - layer);
      const auto group =
          std::span(row.values).subspan(static_cast<std::size_t>(layer), static_cast<std::size_t>(count));
      cells.push_back(panel.is_difference ? furthest(group) : strongest(group, panel.scale.falls));
    }
    return cells;
  }

  std::string line_of(const PanelRow& row, const Panel& panel) const {
    std::string result = spaces(layout_.label - row.label.columns) + row.label.text + (row.marked ? "* " : "  ");
    std::string color;
    for (const double value : cells_of(row, panel)) append_cell(result, color, value, panel);
    if (!style_.color) {
      result.erase(result.find_last_not_of(' ') + 1);
    }
    return result + (color.empty() ? "" : kResetColor) + "\n";
  }

  /// `color` is the one in use, or empty; it is written only where it changes.
  void append_cell(std::string& line, std::string& color, double value, const Panel& panel) const {
    if (style_.color) {
      const std::string wanted = std::isfinite(value) ? color_of(value, panel) : kResetColor;
      line += wanted == color ? "" : wanted;
      color = wanted;
    }
    line += aligned(cell_text(value, panel));
  }

  /// Differences are green above 0, red below.
  std::string color_of(double value, const Panel& panel) const {
    if (!panel.is_difference) return cell_color(panel.kind, panel.scale.shade(value), style_.true_color);
    return cell_color(value < 0 ? Kind::kAttn : Kind::kMlp, panel.scale.shade(std::abs(value)), style_.true_color);
  }

  std::string cell_text(double value, const Panel& panel) const {
    if (!std::isfinite(value)) return "?";
    if (!layout_.holds_numbers()) {
      return style_.color ? " " : panel.is_difference ? sign(value, panel.scale) : tenth(panel.scale.shade(value));
    }
    return panel.kind == Kind::kKnockout || panel.is_difference
               ? signed_percent(value)
               : std::to_string(std::lround(100 * std::clamp(value, 0.0, 1.0)));
  }

  /// From a tenth of the largest on.
  static std::string sign(double value, const Scale& scale) {
    constexpr double kShown = 0.1;
    return scale.shade(std::abs(value)) < kShown ? "." : value < 0 ? "-" : "+";
  }

  /// At most four characters: "-63", "0", "+12", ">999".
  static std::string signed_percent(double change) {
    constexpr long kMost = 999;
    const long percent = std::lround(100 * std::clamp(change, -1.0, 100.0));
    return percent > kMost ? ">" + std::to_string(kMost) : (percent > 0 ? "+" : "") + std::to_string(percent);
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

  std::string legend(const Panel& panel) const {
    const int indent = style_.columns >= 2 * layout_.map_begin() + kNarrowestText ? layout_.map_begin() : 0;
    const auto& scale = panel.scale;
    if (panel.is_difference) {
      const std::string signs = style_.color              ? "; green is above 0, red below"
                                : layout_.holds_numbers() ? ""
                                                          : "; + is above 0, - below";
      return wrapped(
          "largest " + in_unit(scale.dark) + signs + "; above 0 it is of no use alone, below 0 others do the same",
          indent);
    }
    const bool knockout = panel.kind == Kind::kKnockout;
    std::string below;
    if (knockout && layout_.group > 1) below = wrapped("each column is the lowest" + merged(), indent);
    if (scale.is_flat()) {
      return wrapped(scale.at_light + ", and no cell is " + (scale.falls ? "below" : "above") + " it", indent) + below;
    }
    if (!style_.color && layout_.holds_numbers()) {
      return wrapped(knockout ? "change of the probability in percent of the clean " + percentage(trace_.high_score)
                              : scale.at_light + ", " + scale.at_dark,
                     indent) +
             below;
    }
    if (!style_.color) return wrapped(". is " + scale.at_light + ", 9 is " + scale.at_dark, indent) + below;
    constexpr int kBarColumns = 16;
    const auto words = static_cast<int>(scale.at_light.size() + scale.at_dark.size()) + 2;
    if (indent + words + kBarColumns > style_.columns) {
      return wrapped("light is " + scale.at_light + ", dark is " + scale.at_dark, indent) + below;
    }
    return spaces(indent) + unbroken(scale.at_light) + " " + bar(panel.kind, kBarColumns) + " " +
           unbroken(scale.at_dark) + "\n" + below;
  }

  static std::string unbroken(std::string text) {
    std::replace(text.begin(), text.end(), kNoBreak, ' ');
    return text;
  }

  std::string wrapped(const std::string& text, int indent) const {
    auto lines = spaces(indent) + wrap(text, style_.columns - indent);
    for (auto end = lines.find('\n'); end + 1 < lines.size(); end = lines.find('\n', end + 1)) {
      lines.insert(end + 1, spaces(indent));
    }
    return lines;
  }

  std::string bar(Kind kind, int columns) const {
    std::string result;
    for (int i = 0; i < columns; ++i) {
      result += cell_color(kind, static_cast<double>(i) / (columns - 1), style_.true_color) + " ";
    }
    return result + kResetColor;
  }

  static constexpr int kLongestName = 24;

  const TraceRecord& record_;
  const Trace& trace_;
  const TerminalStyle& style_;
  bool noising_;
  Layout layout_;
};

/// ", 0:12 left"; empty while that cannot be known.
std::string time_left(std::int64_t done, std::int64_t total, double seconds) {
  if (done <= 0 || done >= total || !std::isfinite(seconds) || seconds < 0) {
    return "";
  }
  const double left = seconds / static_cast<double>(done) * static_cast<double>(total - done);
  return left < kLongestLeft ? ", " + clock_time(left) + " left" : "";
}

// The maps of either direction, then what they hide from each other.
std::string render_both(const TraceRecord& record, const TerminalStyle& style) {
  const auto denoised = in_direction(record, Direction::kDenoising), noised = in_direction(record, Direction::kNoising);
  const HeatMaps of_denoised(denoised, style), of_noised(noised, style), of_both(record, style);
  std::string result = of_denoised.introduction() + "\n";
  for (const auto& grid : denoised.trace.grids) result += of_denoised.panel(grid) + "\n";
  result += of_noised.introduction() + "\n";
  for (const auto& grid : noised.trace.grids) result += of_noised.panel(grid) + "\n";
  for (std::size_t i = 0; i < record.trace.noising.size(); ++i) {
    if (record.trace.noising[i].kind != Kind::kHead) result += of_both.interaction(i) + "\n";
  }
  return result + render_findings(denoised, style) + render_interactions(record, style);
}

}  // namespace

std::string render_heat_maps(const TraceRecord& record, const TerminalStyle& style) {
  const auto& trace = record.trace;
  assert(static_cast<std::int64_t>(record.texts.prompt.size()) == trace.tokens && trace.layers > 0);
  TerminalStyle usable = style;
  usable.columns = std::max(kNarrowestText, style.columns);
  if (has_both_directions(record)) return render_both(record, usable);
  const HeatMaps maps(record, usable);
  const bool only_knockouts = std::all_of(trace.grids.begin(), trace.grids.end(),
                                          [](const CausalGrid& grid) { return grid.kind == Kind::kKnockout; });
  std::string result = only_knockouts ? "" : maps.introduction() + "\n";
  for (const auto& grid : trace.grids) result += maps.panel(grid) + "\n";
  if (trace.neurons) result += render_neurons(record, usable) + "\n";
  return result + render_findings(record, usable);
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
  auto text = (counts.part.empty() ? "" : counts.part + ": ") + std::to_string(counts.done()) + " of " +
              std::to_string(total) + " facts";
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
  const auto text = batch_progress_text(before, counts, total, part, seconds);
  const double share =
      total > 0 ? std::clamp((static_cast<double>(counts.done()) + part) / static_cast<double>(total), 0.0, 1.0) : 1;
  return behind_bar(share, text, style.columns, style.unicode);
}

}  // namespace rometrace
