#include "rometrace/report/csv_table.hpp"

#include <csv.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "report/directions.hpp"
#include "rometrace/summary/roles.hpp"
#include "rometrace/text/utf8.hpp"

namespace rometrace {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 16U;  // bytes that are written together
constexpr double kNoValue = std::numeric_limits<double>::quiet_NaN();

constexpr std::string_view kPlaceColumns = "file,line,fact,relation,subject,object,answer,direction,";
constexpr std::string_view kCellColumns =
    "kind,window,measure,target,position,token,role,layer,head,score,effect,error,high,low";
constexpr std::string_view kNeuronColumns =
    "measure,target,position,token,role,layer,neuron,score,effect,error,high,low,estimate,clean,corrupted,row_norm,"
    "promotes,suppresses";
constexpr std::string_view kSetColumns =
    "order,measure,target,position,token,role,layer,neurons,score,effect,error,high,low";

/// Each appends a cell, with a comma before it where it is not the first of `text`.
void add_text(std::string& text, std::string_view bytes) {
  if (!text.empty()) text += ',';
  const auto cell = to_valid_utf8(bytes);
  if (cell.empty()) return;
  const bool quoted = cell.find_first_of(",\"\n\r") != std::string::npos || cell.front() == ' ' || cell.back() == ' ';
  if (!quoted) {
    text += cell;
    return;
  }
  const auto begin = text.size();
  text.resize(begin + 2 * cell.size() + 2);
  text.resize(begin + csv_write(text.data() + begin, text.size() - begin, cell.data(), cell.size()));
}

template <typename Number>
void add_number(std::string& text, Number value) {
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  text += ',';
  text.append(digits.data(), end);
}

void add_value(std::string& text, double value) {
  if (std::isnan(value)) {
    text += ',';
  } else {
    add_number(text, value);
  }
}

void add_optional(std::string& text, const std::optional<std::int64_t>& number) {
  if (number) {
    add_number(text, *number);
  } else {
    text += ',';
  }
}

/// What a record tells of each of its lines.
std::string place_of(const TraceRecord& record, const std::string& file, std::int64_t line) {
  std::string text;
  add_text(text, file);
  add_number(text, line);
  add_text(text, record.fact ? record.fact->id : "");
  add_text(text, record.fact ? record.fact->relation.value_or("") : "");
  add_text(text, record.prompt.subject);
  add_text(text, record.fact ? record.fact->object.value_or("") : "");
  add_text(text, record.texts.answer);
  add_text(text, to_string(record.options.direction));
  return text;
}

/// "position,token,role".
void add_position(std::string& text, const TraceRecord& record, std::int64_t position) {
  add_number(text, position);
  add_text(text, record.texts.prompt[static_cast<std::size_t>(position)]);
  const auto role = role_of(position, record.prompt.subject_range, record.trace.tokens);
  add_text(text, role ? to_string(*role) : "");
}

/// One number that is read of each run, and what it is clean and corrupted.
struct TableReading {
  std::string_view measure;
  std::string target;                   // whose it is
  std::optional<std::size_t> measured;  // which of Trace::measured it is made of; none: of the answer's probability
  bool normalised = false;
  double high = 0, low = 0;  // of what it is made of

  double shown(double value) const { return normalised ? (value - low) / (high - low) : value; }
  double shown_high() const { return normalised ? 1 : high; }
  double shown_low() const { return normalised ? 0 : low; }
};

std::vector<TableReading> table_readings(const TraceRecord& record) {
  const auto& trace = record.trace;
  const auto& asked = record.options.measures;
  const auto is_asked = [&](Measure measure) { return std::find(asked.begin(), asked.end(), measure) != asked.end(); };
  std::vector<TableReading> readings, of_targets;
  readings.push_back(
      {to_string(Measure::kProbability), record.texts.answer, {}, false, trace.high_score, trace.low_score});
  TableReading normalised = readings.front();
  for (std::size_t i = 0; i < trace.measured.size(); ++i) {
    const auto& [reading, high, low, error] = trace.measured[i];
    TableReading each{to_string(reading.measure), record.texts.answer, i, false, high, low};
    if (reading.target > 0) {
      each.measure = to_string(Measure::kProbability);
      each.target = record.texts.other_targets[reading.target - 1];
      of_targets.push_back(std::move(each));
      continue;
    }
    if (reading.measure == Measure::kLogitDifference) normalised = each;
    if (is_asked(reading.measure)) readings.push_back(std::move(each));  // else kNormalised needs it
  }
  if (is_asked(Measure::kNormalised)) {
    normalised.measure = to_string(Measure::kNormalised);
    normalised.normalised = true;
    readings.push_back(std::move(normalised));
  }
  std::move(of_targets.begin(), of_targets.end(), std::back_inserter(readings));
  return readings;
}

/// "score,effect,error,high,low".
void add_score(std::string& text, const TableReading& reading, double value, double error, bool is_lost) {
  const double score = reading.shown(value), high = reading.shown_high(), low = reading.shown_low();
  add_value(text, score);
  add_value(text, is_lost ? high - score : score - low);
  add_value(text, reading.normalised ? kNoValue : error);
  add_value(text, high);
  add_value(text, low);
}

void add_run(std::string& text, const TableReading& reading, const RunScore& run, Direction direction) {
  const auto [value, error] =
      reading.measured ? run.measured[*reading.measured] : RunScore::Value{run.score, run.standard_error};
  add_score(text, reading, value, error, direction == Direction::kNoising);
}

std::string first_token(const TraceRecord& record, const std::vector<TokenLogit>& tokens) {
  if (tokens.empty()) return "";
  const auto found = record.texts.of_neurons.find(tokens.front().id);
  return found == record.texts.of_neurons.end() ? "" : found->second;
}

}  // namespace

std::string_view to_string(TableOf what) {
  switch (what) {
    case TableOf::kCells:
      return "cells";
    case TableOf::kNeurons:
      return "neurons";
    case TableOf::kSets:
      return "sets";
  }
  return "unknown";
}

CsvTable::CsvTable(TableOf what, Write write) : what_(what), write_(std::move(write)) {
  text_ = kPlaceColumns;
  text_ += what == TableOf::kCells ? kCellColumns : what == TableOf::kNeurons ? kNeuronColumns : kSetColumns;
  text_ += '\n';
}

void CsvTable::add(const TraceRecord& record, const std::string& file, std::int64_t line) {
  if (record.verdict.status != Status::kTraced) return;
  if (has_both_directions(record)) {
    add(in_direction(record, Direction::kDenoising), file, line);
    add(in_direction(record, Direction::kNoising), file, line);
    if (what_ == TableOf::kCells) add_interactions(record, place_of(record, file, line));
    return;
  }
  const auto place = place_of(record, file, line);
  if (what_ == TableOf::kCells) return add_cells(record, place);
  if (!record.trace.neurons) return;
  what_ == TableOf::kNeurons ? add_neurons(record, place) : add_sets(record, place);
}

void CsvTable::finish() {
  write_(text_);
  text_.clear();
}

void CsvTable::end_line() {
  text_ += '\n';
  ++lines_;
  if (text_.size() >= kPiece) finish();
}

void CsvTable::add_cells(const TraceRecord& record, const std::string& place) {
  const auto readings = table_readings(record);
  const auto L = static_cast<std::size_t>(record.trace.layers);
  for (const auto& grid : record.trace.grids) {
    const bool is_knockout = grid.kind == Kind::kKnockout;
    const bool is_lost = is_knockout || record.options.direction == Direction::kNoising;
    const auto H = static_cast<std::size_t>(grid.heads);
    for (const auto& reading : readings) {
      if (is_knockout && (reading.measured || reading.normalised)) continue;  // its probability alone is kept
      const auto& values = reading.measured ? grid.measured[*reading.measured].values : grid.scores;
      const auto& errors = reading.measured ? grid.measured[*reading.measured].standard_error : grid.standard_error;
      assert(values.size() == grid.rows() * L * H && errors.size() == values.size());
      std::string start = place;
      add_text(start, to_string(grid.kind));
      add_number(start, grid.window);
      add_text(start, reading.measure);
      add_text(start, reading.target);
      for (std::size_t row = 0; row < grid.rows(); ++row) {
        std::string cell = start;
        if (is_knockout) {
          cell += ",,";  // a group of positions
          add_text(cell, grid.groups[row].name);
        } else {
          add_position(cell, record, grid.positions[row]);
        }
        for (std::size_t i = row * L * H; i < (row + 1) * L * H; ++i) {
          text_ += cell;
          add_number(text_, i / H % L);
          add_optional(text_,
                       grid.kind == Kind::kHead ? std::optional(static_cast<std::int64_t>(i % H)) : std::nullopt);
          add_score(text_, reading, values[i], errors[i], is_lost);
          end_line();
        }
      }
    }
  }
}

void CsvTable::add_interactions(const TraceRecord& record, const std::string& place) {
  const auto& trace = record.trace;
  const auto L = static_cast<std::size_t>(trace.layers);
  for (std::size_t which = 0; which < trace.interaction.size(); ++which) {
    const auto& grid = trace.noising[which];
    const auto& [values, errors] = trace.interaction[which];
    const auto H = static_cast<std::size_t>(grid.heads);
    std::string start = place;
    add_text(start, to_string(grid.kind));
    add_number(start, grid.window);
    add_text(start, to_string(Measure::kProbability));
    add_text(start, record.texts.answer);
    for (std::size_t i = 0; i < values.size(); ++i) {
      text_ += start;
      add_position(text_, record, grid.positions[i / (L * H)]);
      add_number(text_, i / H % L);
      add_optional(text_, grid.kind == Kind::kHead ? std::optional(static_cast<std::int64_t>(i % H)) : std::nullopt);
      add_value(text_, kNoValue);
      for (const double value : {values[i], errors[i], trace.high_score, trace.low_score}) add_value(text_, value);
      end_line();
    }
  }
}

void CsvTable::add_neurons(const TraceRecord& record, const std::string& place) {
  const auto readings = table_readings(record);
  for (const auto& effect : record.trace.neurons->effects) {
    for (const auto& reading : readings) {
      text_ += place;
      add_text(text_, reading.measure);
      add_text(text_, reading.target);
      add_position(text_, record, effect.position);
      add_number(text_, effect.layer);
      add_number(text_, effect.neuron);
      add_run(text_, reading, effect.run, record.options.direction);
      for (const double value : {effect.estimate, effect.clean, effect.corrupted, effect.row_norm}) {
        add_value(text_, value);
      }
      add_text(text_, first_token(record, effect.promotes));
      add_text(text_, first_token(record, effect.suppresses));
      end_line();
    }
  }
}

void CsvTable::add_sets(const TraceRecord& record, const std::string& place) {
  const auto readings = table_readings(record);
  const auto add = [&](std::string_view order, const NeuronSet& set) {
    for (const auto& reading : readings) {
      text_ += place;
      add_text(text_, order);
      add_text(text_, reading.measure);
      add_text(text_, reading.target);
      add_position(text_, record, set.position);
      add_optional(text_, set.layer);
      add_number(text_, set.neurons);
      add_run(text_, reading, set.run, record.options.direction);
      end_line();
    }
  };
  const auto& neurons = *record.trace.neurons;
  for (const auto& set : neurons.sets) add("estimate", set);
  for (const auto& set : neurons.sets_by_layer) add("estimate", set);
  for (const auto& control : neurons.controls) add(to_string(control.order), control.set);
}

}  // namespace rometrace
