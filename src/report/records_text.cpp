#include "rometrace/report/records_text.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

#include "report/display_text.hpp"
#include "report/finding.hpp"
#include "report/table_text.hpp"

namespace rometrace {
namespace {

enum RecordColumn : std::size_t {
  kFact,
  kSubject,
  kAnswer,
  kClean,
  kCorrupted,
  kTotal,
  kKind,
  kToken,
  kPlace,
  kEffect
};
constexpr std::size_t kRecordColumns = 10;
constexpr int kUnbounded = 100'000;
constexpr int kBetween = 2;  // columns between two of a table

/// Whether numbers stand there, at the right.
bool is_numeric(std::size_t column) {
  return column != kFact && column != kSubject && column != kAnswer && column != kKind && column != kToken;
}

/// A cell of the table, not yet escaped.
struct RecordCell {
  std::string text;
  bool quoted = false;
};
using RecordCells = std::array<RecordCell, kRecordColumns>;

RecordCell number_cell(double value) {
  return {std::isfinite(value) ? percent(value) : "-"};
}

/// Where a knockout takes most; nothing where it takes nothing.
void add_knockout(RecordRow& row, const TraceRecord& record, const CausalGrid& grid) {
  const auto L = static_cast<std::size_t>(record.trace.layers);
  for (std::size_t i = 0; i < grid.scores.size(); ++i) {
    const double effect = record.trace.high_score - grid.scores[i];
    if (!(effect > row.effect)) continue;
    row.effect = effect;
    row.kind = to_string(grid.kind);
    row.token = grid.groups[i / L].name;
    row.place = std::to_string(i % L);
  }
}

class RecordTable {
 public:
  RecordTable(const std::vector<RecordRow>& rows, const TerminalStyle& style) : rows_(rows), style_(style) {
    for (const auto& row : rows) {
      if (row.kind.empty()) continue;
      if (!kind_) kind_ = row.kind;
      if (*kind_ != row.kind) kind_ = "";  // of several kinds
    }
    for (const auto& row : rows) lines_.push_back(cells_of(row));
    head_ = head();
    fit();
  }

  std::string render() const {
    auto text = counts() + "\n" + line(head_, nullptr);
    for (std::size_t i = 0; i < rows_.size(); ++i)
      text += line(lines_[i], rows_[i].reason.empty() ? nullptr : &rows_[i]);
    return text;
  }

 private:
  /// The cell escaped, at most as wide as it may be.
  DisplayText shown(const RecordCell& cell, int columns) const {
    if (cell.text.empty() && !cell.quoted) return {};
    return display_head(cell.text, std::max(4, columns), {.unicode = style_.unicode, .quoted = cell.quoted});
  }
  int width_of(const RecordCell& cell) const { return shown(cell, kUnbounded).columns; }

  std::string counts() const {
    std::int64_t traced = 0, skipped = 0, failed = 0;
    for (const auto& row : rows_) {
      ++(row.reason.empty() ? traced : row.reason.starts_with("skipped") ? skipped : failed);
    }
    const auto text = std::to_string(rows_.size()) + " records: " + std::to_string(traced) + " traced, " +
                      std::to_string(skipped) + " skipped, " + std::to_string(failed) +
                      " failed. Probabilities in percent; --id ID draws one.";
    return wrap(text, std::max(kNarrowestText, style_.columns), kSentenceIndent);
  }

  RecordCells head() const {
    const auto strongest = kind_ && !kind_->empty() ? "strongest " + *kind_ : std::string("strongest");
    const std::string place = kind_ == "neuron" ? "neuron" : "layer";
    return {{{"fact"},
             {"subject"},
             {"answer"},
             {"clean"},
             {"corrupted"},
             {"total"},
             {"kind"},
             {strongest},
             {place},
             {"effect"}}};
  }

  RecordCells cells_of(const RecordRow& row) const {
    RecordCells cells;
    cells[kFact] = {row.fact};
    cells[kSubject] = {row.subject};
    if (!row.reason.empty()) return cells;
    cells[kAnswer] = {row.answer, true};
    cells[kClean] = number_cell(row.high);
    cells[kCorrupted] = number_cell(row.low);
    cells[kTotal] = number_cell(row.high - row.low);
    if (row.kind.empty()) return cells;
    const bool is_group = row.kind == to_string(Kind::kKnockout);
    if (kind_->empty()) cells[kKind] = {row.kind};
    cells[kToken] = {row.token, !is_group};
    cells[kPlace] = {row.place};
    cells[kEffect] = number_cell(row.effect);
    return cells;
  }

  /// Widths by what is in the columns; then less for texts, and less columns, until all fits.
  void fit() {
    widths_.fill(0);
    for (std::size_t column = 0; column < kRecordColumns; ++column) {
      for (const auto& cells : lines_) widths_[column] = std::max(widths_[column], width_of(cells[column]));
      if (widths_[column] > 0) widths_[column] = std::max(widths_[column], width_of(head_[column]));
    }
    struct Step {
      std::size_t column;
      int least;  // columns that are left of it; 0: it is left out
    };
    constexpr std::array<Step, 13> kCuts = {{{kToken, 16},
                                              {kAnswer, 12},
                                              {kSubject, 16},
                                              {kFact, 24},
                                              {kToken, 10},
                                              {kSubject, 0},
                                              {kKind, 0},
                                              {kCorrupted, 0},
                                              {kFact, 12},
                                              {kClean, 0},
                                              {kAnswer, 0},
                                              {kFact, 4},
                                              {kToken, 4}}};
    const int columns = std::max(kNarrowestText, style_.columns);
    for (const auto& [column, least] : kCuts) {
      const int excess = width() - columns;
      if (excess <= 0) return;
      widths_[column] = least == 0 ? 0 : std::max(std::min(widths_[column], least), widths_[column] - excess);
    }
  }

  int width() const {
    const auto used = std::count_if(widths_.begin(), widths_.end(), [](int width) { return width > 0; });
    return std::accumulate(widths_.begin(), widths_.end(), 0) +
           kBetween * static_cast<int>(std::max<std::ptrdiff_t>(0, used - 1));
  }

  /// `untraced`: a row that has a reason instead of numbers.
  std::string line(const RecordCells& cells, const RecordRow* untraced) const {
    std::string text;
    int begin = 0;  // of the column
    for (std::size_t column = 0; column < kRecordColumns; ++column) {
      const int columns = widths_[column];
      if (untraced != nullptr && column == kAnswer) {
        const int room = std::max(4, std::max(kNarrowestText, style_.columns) - begin);
        return trimmed(text + display_head(untraced->reason, room, {.unicode = style_.unicode}).text);
      }
      if (columns == 0) continue;
      const auto cell = shown(cells[column], columns).text;
      text += is_numeric(column) ? right(cell, columns) : left(cell, columns);
      text += std::string(kBetween, ' ');
      begin += columns + kBetween;
    }
    return trimmed(text);
  }

  const std::vector<RecordRow>& rows_;
  const TerminalStyle& style_;
  std::optional<std::string> kind_;  // of all rows; empty: of several
  std::vector<RecordCells> lines_;
  RecordCells head_;
  std::array<int, kRecordColumns> widths_{};
};

}  // namespace

RecordRow record_row(const TraceRecord& record) {
  RecordRow row;
  if (record.fact) row.fact = record.fact->id;
  row.subject = record.prompt.subject;
  if (record.verdict.status != Status::kTraced) {
    row.reason =
        std::string(to_string(record.verdict.status)) + ": " +
        (record.verdict.reason.empty() ? std::string(to_string(record.verdict.cause.value())) : record.verdict.reason);
    return row;
  }
  const auto& trace = record.trace;
  row.answer = record.texts.answer;
  row.high = trace.high_score;
  row.low = trace.low_score;
  const bool noising = record.options.direction == Direction::kNoising;
  const auto effect_of = [&](double score) { return noising ? trace.high_score - score : score - trace.low_score; };
  const auto token_at = [&](std::int64_t position) { return record.texts.prompt[static_cast<std::size_t>(position)]; };
  if (!trace.grids.empty()) {
    const auto& grid = trace.grids.front();
    if (grid.kind == Kind::kKnockout) {
      add_knockout(row, record, grid);
      return row;
    }
    const auto best = strongest_cell(grid, trace.layers, noising, end_of_search(grid, trace.tokens));
    if (!best || !(effect_of(best->score) > 0)) return row;
    row.kind = to_string(grid.kind);
    row.token = token_at(grid.positions[best->row]);
    row.place = std::to_string(best->layer) + (grid.kind == Kind::kHead ? "." + std::to_string(best->head) : "");
    row.effect = effect_of(best->score);
  } else if (trace.neurons && !trace.neurons->effects.empty()) {
    const auto& best = trace.neurons->effects.front();
    row.kind = "neuron";
    row.token = token_at(best.position);
    row.place = std::to_string(best.layer) + ":" + std::to_string(best.neuron);
    row.effect = effect_of(best.run.score);
  }
  return row;
}

std::string render_records(const std::vector<RecordRow>& rows, const TerminalStyle& style) {
  return RecordTable(rows, style).render();
}

}  // namespace rometrace
