#include "rometrace/report/record_comparison.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

constexpr double kNoNumber = std::numeric_limits<double>::quiet_NaN();

/// A number of a record, and how it is to be compared.
struct Entry {
  double value = 0;
  double beside = 0;   ///< what its rounding is at least relative to
  double allowed = 0;  ///< on top of rounding
};

/// All numbers of a record, by their path, in its order.
class Numbers {
 public:
  explicit Numbers(const TraceRecord& record) : record_(record), trace_(record.trace) {
    add("prediction_score", trace_.prediction_score);
    add("high_score", trace_.high_score);
    if (record.verdict.status != Status::kTraced) return;
    add("low_score", trace_.low_score);
    add("low_standard_error", trace_.low_standard_error, trace_.low_score);
    for (std::size_t i = 0; i < trace_.measured.size(); ++i) add_reading(i);
    for (const auto& grid : trace_.grids) grid.kind == Kind::kKnockout ? add_knockout(grid) : add_grid(grid, "");
    for (const auto& grid : trace_.noising) add_grid(grid, "noising.");
    for (std::size_t i = 0; i < trace_.interaction.size(); ++i) add_interaction(i);
    if (trace_.neurons) add_neurons(*trace_.neurons);
  }

  const std::vector<std::pair<std::string, Entry>>& list() const { return list_; }
  const Entry* find(const std::string& path) const {
    const auto found = places_.find(path);
    return found == places_.end() ? nullptr : &list_[found->second].second;
  }

 private:
  void add(const std::string& path, double value, double beside = 0, double allowed = 0) {
    places_.emplace(path, list_.size());
    list_.emplace_back(path, Entry{value, std::isfinite(beside) ? std::abs(beside) : 0, allowed});
  }

  /// A value of a reading, which may be of another size than a probability.
  void add(const std::string& path, const Reading& reading, double value, double beside = 0) {
    const bool probability = reading.measure == Measure::kProbability;
    constexpr double kOfLogits = 10, kOfRanks = 0.01;
    if (reading.measure == Measure::kRank) {
      add(path, value, beside, std::max(1.0, kOfRanks * std::abs(value)));
    } else {
      add(path, value, probability ? beside : std::max(kOfLogits, std::abs(beside)));
    }
  }

  std::string name_of(const Reading& reading) const {
    if (reading.target > 0) return "other_targets[" + std::to_string(reading.target - 1) + "]";
    return "measures." + std::string(to_string(reading.measure));
  }

  void add_reading(std::size_t i) {
    const auto& [reading, high, low, error] = trace_.measured[i];
    const auto name = name_of(reading);
    const bool target = reading.target > 0;
    add(name + (target ? ".high_score" : ".high"), reading, high);
    add(name + (target ? ".low_score" : ".low"), reading, low);
    add(name + ".low_standard_error", reading, error, low);
  }

  std::string cell(const CausalGrid& grid, std::size_t index) const {
    const auto L = static_cast<std::size_t>(trace_.layers), H = static_cast<std::size_t>(grid.heads);
    const auto text = "[" + std::to_string(index / (L * H)) + "][" + std::to_string(index / H % L) + "]";
    return grid.kind == Kind::kHead ? text + "[" + std::to_string(index % H) + "]" : text;
  }

  void add_grid(const CausalGrid& grid, const std::string& within) {
    const auto of_kind = "grids." + std::string(to_string(grid.kind));
    const auto name = within + of_kind;
    for (std::size_t i = 0; i < grid.scores.size(); ++i) {
      add(name + ".scores" + cell(grid, i), grid.scores[i]);
      add(name + ".standard_error" + cell(grid, i), grid.standard_error[i], grid.scores[i]);
    }
    for (std::size_t r = 0; r < grid.measured.size(); ++r) {
      const auto& reading = trace_.measured[r].reading;
      const auto of_reading = within + name_of(reading) + "." + of_kind;
      const auto& [values, errors] = grid.measured[r];
      for (std::size_t i = 0; i < values.size(); ++i) {
        add(of_reading + (reading.target > 0 ? ".scores" : ".values") + cell(grid, i), reading, values[i]);
        add(of_reading + ".standard_error" + cell(grid, i), reading, errors[i], values[i]);
      }
    }
  }

  /// The values follow from scores; their errors do not.
  void add_interaction(std::size_t i) {
    const auto& grid = trace_.noising[i];
    const auto name = "noising.grids." + std::string(to_string(grid.kind)) + ".interaction_standard_error";
    const auto& errors = trace_.interaction[i].standard_error;
    for (std::size_t c = 0; c < errors.size(); ++c) add(name + cell(grid, c), errors[c], trace_.high_score);
  }

  void add_knockout(const CausalGrid& grid) {
    const auto L = static_cast<std::size_t>(trace_.layers);
    for (std::size_t i = 0; i < grid.scores.size(); ++i) {
      add("knockout.groups." + std::string(grid.groups[i / L].name) + ".scores[" + std::to_string(i % L) + "]",
          grid.scores[i]);
    }
  }

  void add_run(const std::string& name, const RunScore& run) {
    add(name + ".score", run.score);
    add(name + ".standard_error", run.standard_error, run.score);
    for (std::size_t i = 0; i < run.measured.size(); ++i) {
      const auto of_reading = name + "." + name_of(trace_.measured[i].reading);
      add(of_reading, trace_.measured[i].reading, run.measured[i].value);
      add(of_reading + ".standard_error", trace_.measured[i].reading, run.measured[i].standard_error,
          run.measured[i].value);
    }
  }

  void add_set(const std::string& list, const NeuronSet& set) {
    add_run("neurons." + list + "[" + (set.layer ? "layer " + std::to_string(*set.layer) + ", " : std::string()) +
                "position " + std::to_string(set.position) + ", best " + std::to_string(set.neurons) + "]",
            set.run);
  }

  void add_neurons(const NeuronTrace& neurons) {
    for (const auto& effect : neurons.effects) {
      const auto name = "neurons.effects[" + std::to_string(effect.layer) + ":" + std::to_string(effect.neuron) +
                        ", position " + std::to_string(effect.position) + "]";
      add(name + ".estimate", effect.estimate, trace_.high_score);
      add_run(name, effect.run);
      add(name + ".value.clean", effect.clean, 1);
      add(name + ".value.corrupted", effect.corrupted, 1);
    }
    for (const auto& set : neurons.sets) add_set("sets", set);
    for (const auto& set : neurons.sets_by_layer) add_set("sets_by_layer", set);
    for (const auto& control : neurons.controls) {
      add_set("controls." + std::string(to_string(control.order)), control.set);
    }
    for (const auto& half : neurons.half) {
      constexpr double kOfHalf = 0.02;  // a threshold that rounding passes
      const auto count = half.neurons ? static_cast<double>(*half.neurons) : kNoNumber;
      add("neurons.half[" + (half.layer ? "layer " + std::to_string(*half.layer) + ", " : std::string()) + "position " +
              std::to_string(half.position) + "]",
          count, 0, std::max(1.0, kOfHalf * count));
    }
  }

  const TraceRecord& record_;
  const Trace& trace_;
  std::vector<std::pair<std::string, Entry>> list_;
  std::map<std::string, std::size_t> places_;
};

double excess_of(const Entry& was, const Entry& is, const Rounding& rounding) {
  if (std::isnan(was.value) && std::isnan(is.value)) return 0;
  if (was.value == is.value) return 0;
  const double difference = std::abs(was.value - is.value);
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  const double beside = std::max({std::abs(was.value), std::abs(is.value), was.beside, is.beside});
  return difference / (rounding.absolute + rounding.relative * beside + std::max(was.allowed, is.allowed));
}

/// The least |estimate| of the neurons that are told of: who has it is decided by rounding.
double least_estimate(const TraceRecord& record) {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& effect : record.trace.neurons->effects) least = std::min(least, std::abs(effect.estimate));
  return least;
}

/// Whether what only `one` has may be missing in another run: of a neuron that ranks as the last does.
bool may_be_missing(const std::string& path, const TraceRecord& one, const Rounding& rounding) {
  if (!one.trace.neurons || !path.starts_with("neurons.effects[")) return false;
  const auto least = least_estimate(one);
  for (const auto& effect : one.trace.neurons->effects) {
    const auto name = "neurons.effects[" + std::to_string(effect.layer) + ":" + std::to_string(effect.neuron) + ",";
    if (!path.starts_with(name)) continue;
    const double apart = std::abs(effect.estimate) - least;
    if (apart <= rounding.absolute + rounding.relative * std::max(least, one.trace.high_score)) return true;
  }
  return false;
}

std::string what_was_said(const TraceRecord& record) {
  return in_quotes(record.texts.prediction, 40) + " (" + std::to_string(record.trace.prediction_id) + ")";
}

}  // namespace

Rounding Rounding::of_dtype(std::string_view dtype) {
  if (dtype == "float64") return {1e-9, 1e-12};
  if (dtype == "float16") return {0.02, 2e-3};
  if (dtype == "bfloat16") return {0.1, 1e-2};
  return {1e-4, 1e-6};
}

RecordComparison compare_records(const TraceRecord& was, const TraceRecord& is, const Rounding& rounding) {
  RecordComparison comparison;
  auto& others = comparison.others;
  if (was.prompt.token_ids != is.prompt.token_ids) others.push_back("the tokens of the prompt are others");
  if (was.trace.prediction_id != is.trace.prediction_id) {
    others.push_back("the model's answer was " + what_was_said(was) + " and is " + what_was_said(is));
  }
  const Numbers before(was), now(is);
  const auto lacks = [&](const Numbers& one, const Numbers& other, const TraceRecord& of, const char* whose) {
    std::int64_t count = 0;
    std::string first;
    for (const auto& [path, entry] : one.list()) {
      if (other.find(path) != nullptr || may_be_missing(path, of, rounding)) continue;
      if (count++ == 0) first = path;
    }
    if (count == 0) return;
    others.push_back(std::string(whose) + " alone has " + first +
                     (count > 1 ? " and " + std::to_string(count - 1) + " other numbers" : ""));
  };
  lacks(before, now, was, "the file");
  lacks(now, before, is, "this run");
  for (const auto& [path, entry] : before.list()) {
    const auto* other = now.find(path);
    if (other == nullptr) continue;
    ++comparison.numbers;
    const double excess = excess_of(entry, *other, rounding);
    if (excess == 0) continue;
    const NumberDifference difference{path, entry.value, other->value, excess};
    if (!comparison.largest || excess > comparison.largest->excess) comparison.largest = difference;
    if (excess > 1) comparison.beyond.push_back(difference);
  }
  return comparison;
}

}  // namespace rometrace
