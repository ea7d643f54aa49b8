#include "summary/traced_fact.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/summary/summary.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {

using nlohmann::json;

void refuse(const SummaryLine& line, const std::string& what) {
  throw Error(line.where + ": " + what + "; expected a line as rometrace writes it");
}

const json& member(const SummaryLine& line, const json& object, const char* name) {
  if (!object.is_object() || !object.contains(name)) refuse(line, std::string("no \"") + name + "\"");
  return object.at(name);
}

std::int64_t whole_number(const SummaryLine& line, const json& value, const char* name) {
  if (!value.is_number_integer() || value < 0 || value > (std::int64_t{1} << 40)) {
    refuse(line, std::string("\"") + name + "\" is no whole number");
  }
  return value.get<std::int64_t>();
}

namespace {

/// A probability; NaN for null.
double score_of(const SummaryLine& line, const char* name) {
  const auto& value = member(line, line.json, name);
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!value.is_number()) refuse(line, std::string("\"") + name + "\" is no number");
  return value.get<double>();
}

TokenRange subject_of(const SummaryLine& line, std::int64_t tokens) {
  const auto& range = member(line, line.json, "subject_range");
  if (!range.is_array() || range.size() != 2) refuse(line, "\"subject_range\" is no pair of positions");
  const auto begin = whole_number(line, range[0], "subject_range"), end = whole_number(line, range[1], "subject_range");
  if (begin >= end || end > tokens)
    refuse(line, "\"subject_range\" is not within the " + std::to_string(tokens) + " tokens");
  return {static_cast<std::size_t>(begin), static_cast<std::size_t>(end)};
}

bool is_noising(const SummaryLine& line) {
  const auto run = line.json.find("run");
  if (run == line.json.end() || !run->is_object() || !run->contains("direction")) return false;
  const auto& direction = run->at("direction");
  if (direction != "denoising" && direction != "noising" && direction != "both") {
    refuse(line, R"("direction" is neither "denoising" nor "noising" nor "both")");
  }
  return direction == "noising";
}

void check_grid(const SummaryLine& line, const SummaryGrid& grid, const TracedFact& fact) {
  const auto name = in_quotes(grid.kind);
  if (std::count_if(line.grids.begin(), line.grids.end(), [&](const auto& g) { return g.kind == grid.kind; }) > 1) {
    refuse(line, "the grid " + name + " is there twice");
  }
  const auto& positions = grid.positions;
  const auto rows = positions ? static_cast<std::int64_t>(positions->size()) : fact.tokens;
  if (grid.rows != rows || (rows > 0 && grid.layers != fact.layers)) {
    refuse(line, "the grid " + name + " has " + std::to_string(grid.rows) + " rows of " + std::to_string(grid.layers) +
                     " scores for " + std::to_string(rows) + (positions ? " positions" : " tokens") + " and " +
                     std::to_string(fact.layers) + " layers");
  }
  if (!positions) return;
  if (std::adjacent_find(positions->begin(), positions->end(), std::greater_equal<>()) != positions->end()) {
    refuse(line, "the positions of the grid " + name + " do not ascend");
  }
  if (rows > 0 && positions->back() >= fact.tokens) {
    refuse(line, "the grid " + name + " has position " + std::to_string(positions->back()) + " of " +
                     std::to_string(fact.tokens) + " tokens");
  }
}

void check_noising(const SummaryLine& line, const TracedFact& fact) {
  for (const auto& grid : line.noising) {
    const auto* main = fact.find(grid.kind);
    if (main == nullptr || grid.rows != main->rows || grid.layers != main->layers || grid.heads != main->heads ||
        grid.positions != main->positions) {
      refuse(line, "the grid " + in_quotes(grid.kind) + " of \"noising\" is not of the rows and layers of the line's");
    }
  }
  if (!line.noising.empty() && line.noising.size() != line.grids.size()) {
    refuse(line, "\"noising\" has not the grids of the line");
  }
}

void check_readings(const SummaryLine& line, const TracedFact& fact) {
  for (const auto& reading : line.readings) {
    const auto name = reading.measure.empty() ? std::string("another target") : in_quotes(reading.measure);
    for (const auto& grid : reading.grids) {
      const auto* main = fact.find(grid.kind);
      if (main == nullptr) refuse(line, name + " has the grid " + in_quotes(grid.kind) + ", which the line has not");
      if (grid.rows != main->rows || grid.layers != main->layers || grid.heads != main->heads) {
        refuse(line, "the grid " + in_quotes(grid.kind) + " of " + name + " is not of the line's rows and layers");
      }
    }
  }
}

/// [L], NaN for null.
std::vector<double> changes_of(const SummaryLine& line, const json& group, const std::string& name,
                               std::int64_t layers) {
  const auto& values = member(line, group, "relative_change");
  if (!values.is_array() || static_cast<std::int64_t>(values.size()) != layers) {
    refuse(line, "\"relative_change\" of the knockout of " + name + " is no list of " + std::to_string(layers) +
                     " numbers, one a layer");
  }
  std::vector<double> changes;
  for (const auto& value : values) {
    if (!value.is_number() && !value.is_null()) {
      refuse(line, "\"relative_change\" of the knockout of " + name + " has a value that is no number");
    }
    changes.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>());
  }
  return changes;
}

void read_knockout(const SummaryLine& line, TracedFact& fact) {
  const auto found = line.json.find("knockout");
  if (found == line.json.end()) return;
  fact.knockout_window = whole_number(line, member(line, *found, "window"), "window");
  const auto& groups = member(line, *found, "groups");
  if (!groups.is_object()) refuse(line, "\"groups\" of the knockout is no object");
  for (const auto& [name, group] : groups.items()) {
    const auto place = std::find(kKnockoutGroups.begin(), kKnockoutGroups.end(), name);
    if (place == kKnockoutGroups.end()) {
      refuse(line, "the knockout of " + in_quotes(name) + ", which is none of subject, before, after, last");
    }
    auto changes = changes_of(line, group, in_quotes(name), fact.layers);
    // Of an answer without any probability there is no relative change.
    if (fact.high == 0) continue;
    fact.knockouts.push_back({static_cast<std::size_t>(place - kKnockoutGroups.begin()), std::move(changes)});
  }
}

}  // namespace

TracedFact traced_fact(const SummaryLine& line) {
  TracedFact fact;
  fact.high = score_of(line, "high_score");
  fact.low = score_of(line, "low_score");
  fact.layers = whole_number(line, member(line, member(line, line.json, "model"), "layers"), "layers");
  const auto& tokens = member(line, line.json, "tokens");
  fact.tokens = tokens.is_array() ? static_cast<std::int64_t>(tokens.size()) : 0;
  fact.subject = subject_of(line, fact.tokens);
  fact.noising = is_noising(line);
  fact.grids = line.grids;
  for (const auto& grid : line.grids) check_grid(line, grid, fact);
  check_noising(line, fact);
  fact.noising_grids = line.noising;
  check_readings(line, fact);
  fact.readings = line.readings;
  read_knockout(line, fact);
  fact.neurons = traced_neurons(line, fact.tokens, fact.layers);
  if (line.grids.empty() && !fact.knockout_window && !fact.neurons) refuse(line, "no grids");
  return fact;
}

bool all_numbers(const TracedFact& fact) {
  const auto is_number = [](double score) { return std::isfinite(score); };
  const auto are_numbers = [&](const std::vector<double>& values) {
    return std::all_of(values.begin(), values.end(), is_number);
  };
  return is_number(fact.high) && is_number(fact.low) &&
         std::all_of(fact.grids.begin(), fact.grids.end(),
                     [&](const auto& grid) { return are_numbers(grid.scores); }) &&
         std::all_of(fact.noising_grids.begin(), fact.noising_grids.end(),
                     [&](const auto& grid) { return are_numbers(grid.scores); }) &&
         std::all_of(fact.knockouts.begin(), fact.knockouts.end(),
                     [&](const auto& knockout) { return are_numbers(knockout.changes); }) &&
         (!fact.neurons || all_numbers(*fact.neurons));
}

}  // namespace rometrace
