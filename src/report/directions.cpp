#include "report/directions.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "report/display_text.hpp"
#include "report/finding.hpp"

namespace rometrace {

bool has_both_directions(const TraceRecord& record) {
  return record.options.direction == Direction::kBoth && !record.trace.noising.empty();
}

TraceRecord in_direction(const TraceRecord& record, Direction direction) {
  auto one = record;
  one.options.direction = direction;
  if (direction == Direction::kNoising) one.trace.grids = std::move(one.trace.noising);
  one.trace.noising.clear();
  one.trace.interaction.clear();
  return one;
}

std::optional<InteractionCell> strongest_interaction(const Trace& trace, std::size_t which) {
  const auto& values = trace.interaction.at(which).values;
  const auto L = static_cast<std::size_t>(trace.layers), H = static_cast<std::size_t>(trace.noising[which].heads);
  std::optional<InteractionCell> best;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) || (best && std::abs(values[i]) <= std::abs(best->value))) continue;
    best = InteractionCell{i, i / (L * H), static_cast<std::int64_t>(i / H % L), static_cast<std::int64_t>(i % H),
                           values[i]};
  }
  return best;
}

std::string render_interactions(const TraceRecord& record, const TerminalStyle& style) {
  const auto& trace = record.trace;
  std::string text;
  for (std::size_t i = 0; i < trace.interaction.size(); ++i) {
    const auto best = strongest_interaction(trace, i);
    if (!best) continue;
    const auto& noised = trace.noising[i];
    const auto denoised = std::find_if(trace.grids.begin(), trace.grids.end(),
                                       [&](const CausalGrid& grid) { return grid.kind == noised.kind; });
    const auto position = noised.positions[best->row];
    const auto takes = trace.high_score - noised.scores[best->index];
    const auto brings = denoised->scores[best->index] - trace.low_score;
    text += wrap("Strongest interaction of " + std::string(words_of(noised.kind)) + ": " +
                     quoted_token(record.texts.prompt[static_cast<std::size_t>(position)], style) + " (" +
                     std::string(role_of(record, position)) + "), " + (noised.window > 1 ? "around " : "") + "layer " +
                     std::to_string(best->layer) +
                     (noised.kind == Kind::kHead ? ", head " + std::to_string(best->head) : "") + ": corrupting it " +
                     (takes < 0 ? "adds " : "takes away ") + probability(std::abs(takes)) + ", restoring it " +
                     (brings < 0 ? "takes away " : "brings back ") + probability(std::abs(brings)) + ".",
                 std::min(style.columns, kTextColumns), kSentenceIndent);
  }
  return text;
}

}  // namespace rometrace
