#include "rometrace/report/models_text.hpp"

#include <algorithm>
#include <array>

#include "report/display_text.hpp"
#include "report/table_text.hpp"
#include "rometrace/text/bytes_text.hpp"

namespace rometrace {
namespace {

constexpr std::size_t kColumns = 5;
constexpr int kWidestCell = 48;
using Row = std::array<std::string, kColumns>;

/// "main, v1.0 (607a30d)".
std::string revision_text(const CachedModel& model) {
  constexpr std::size_t kShortCommit = 7;
  const std::string commit = model.commit.substr(0, kShortCommit);
  std::string names;
  for (const std::string& revision : model.revisions) names += (names.empty() ? "" : ", ") + revision;
  return names.empty() ? commit : names + " (" + commit + ")";
}

/// "gpt2, 12 x 768".
std::string size_text(const CachedModel& model) {
  if (model.layers == 0) return model.family;
  return model.family + ", " + std::to_string(model.layers) + " x " + std::to_string(model.width);
}

Row row_of(const CachedModel& model, const TerminalStyle& style) {
  const auto safe = [&](const std::string& text) {
    return display_head(text, kWidestCell, {.unicode = style.unicode}).text;
  };
  return {safe(model.name), safe(revision_text(model)), bytes_text(model.bytes), safe(size_text(model)),
          model.obstacle ? "no" : "yes"};
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
  for (const auto& model : models) rows.push_back(row_of(model, style));
  std::array<int, kColumns> widths{};
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < kColumns; ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  }
  constexpr std::size_t kSize = 2;  // the one column of numbers
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < kColumns; ++i) {
      line += i == kSize ? right(rows[r][i], widths[i]) : left(rows[r][i], widths[i]);
      line += "  ";
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
