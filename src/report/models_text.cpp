#include "rometrace/report/models_text.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "report/display_text.hpp"
#include "report/table_text.hpp"
#include "rometrace/text/bytes_text.hpp"

namespace rometrace {
namespace {

constexpr std::size_t kColumns = 5;
constexpr std::size_t kName = 0, kRevision = 1, kSize = 2, kFamily = 3;
constexpr int kWidestColumn = 48, kGap = 2;
using Row = std::array<std::string, kColumns>;

/// "main, v1.0 (607a30d)".
std::string revision_text(const CachedModel& model) {
  constexpr std::size_t kShortCommit = 7;
  std::string names;
  for (const std::string& revision : model.revisions) names += (names.empty() ? "" : ", ") + revision;
  if (names.empty()) return model.commit;  // whole: as --revision takes it
  return names + " (" + model.commit.substr(0, kShortCommit) + ")";
}

/// "gpt2, 12 x 768".
std::string shape_text(const CachedModel& model) {
  if (model.layers == 0) return model.family;
  return model.family + ", " + std::to_string(model.layers) + " x " + std::to_string(model.width);
}

// Not yet escaped.
Row row_of(const CachedModel& model) {
  return {model.name, revision_text(model), bytes_text(model.bytes), shape_text(model), model.obstacle ? "no" : "yes"};
}

/// Makes columns narrower until they fit in `columns`, or are as narrow as they get: first what is told of the model,
/// last its name, by which it is asked for.
void shrink(std::array<int, kColumns>& widths, int columns) {
  struct Least {
    std::size_t column;
    int width;
  };
  constexpr std::array<Least, 4> kOrder{{{kFamily, 15}, {kRevision, 9}, {kFamily, 8}, {kName, 12}}};
  int excess = std::accumulate(widths.begin(), widths.end(), kGap * (static_cast<int>(kColumns) - 1)) - columns;
  for (const auto& [column, least] : kOrder) {
    const int less = std::clamp(widths[column] - least, 0, std::max(0, excess));
    widths[column] -= less;
    excess -= less;
  }
}

/// The message without the folder's path, which the table's lines stand for.
std::string obstacle_text(const CachedModel& model) {
  std::string text = *model.obstacle;
  const std::string start = model.folder.native();
  for (const std::string& prefix : {start + "/", start + ": "}) {
    if (text.starts_with(prefix)) text.erase(0, prefix.size());
  }
  return text;
}

}  // namespace

std::string render_models(const std::vector<CachedModel>& models, const TerminalStyle& style) {
  if (models.empty()) return "";
  std::vector<Row> rows = {{"model", "revision", "size", "family, layers x width", "traceable"}};
  for (const auto& model : models) rows.push_back(row_of(model));
  const auto cell = [&](const Row& row, std::size_t column, int columns) {
    return display_head(row[column], columns, {.unicode = style.unicode}).text;
  };
  std::array<int, kColumns> widths{};
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], columns_of(cell(row, i, kWidestColumn)));
  }
  shrink(widths, style.columns);
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < kColumns; ++i) {
      const auto shown = cell(rows[r], i, widths[i]);
      line += i == kSize ? right(shown, widths[i]) : left(shown, widths[i]);
      line += std::string(kGap, ' ');
    }
    text += trimmed(line);
    if (r == 0 || !models[r - 1].obstacle) continue;
    constexpr int kIndent = 4, kMost = 100'000;
    const auto safe = display_head("not traceable: " + obstacle_text(models[r - 1]), kMost, {.unicode = style.unicode});
    text += std::string(kIndent, ' ') + wrap(safe.text, std::max(20, style.columns - kIndent), kIndent);
  }
  return text;
}

}  // namespace rometrace
