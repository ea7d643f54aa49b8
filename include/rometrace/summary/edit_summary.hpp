#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rometrace/edit/evaluation.hpp"
#include "rometrace/summary/cluster_means.hpp"
#include "rometrace/summary/selection_summary.hpp"
#include "rometrace/summary/summary.hpp"
#include "rometrace/summary/summary_reader.hpp"

namespace rometrace {

class Coverage;

/// A score's mean over facts.
struct ScoreMean {
  std::int64_t facts = 0;           ///< that have the score
  std::optional<double> mean;       ///< none without a fact
  std::optional<double> deviation;  ///< over facts, of the population (divided by n), as the authors' summary has it
  std::optional<Bounds> bootstrap;  ///< 95 %, of the mean; none for less than two facts
};

/// Means of edits before or after.
struct ScoreMeans {
  std::array<ScoreMean, kScores.size()> scores;  ///< in their order
  std::optional<double> overall;                 ///< S of the means of ES, PS and NS; none where one is missing
  std::optional<Bounds> overall_bootstrap;

  const ScoreMean& of(Score score) const { return scores[static_cast<std::size_t>(score)]; }
};

/// Edits of some facts in the same layers.
struct EditGroupSummary {
  std::optional<std::vector<std::int64_t>> layers;  ///< none: each where a trace of its own peaked
  std::int64_t facts = 0;                           ///< edited
  std::int64_t refused = 0;                         ///< of the facts edited elsewhere, by a guard
  ScoreMeans before, after;
  std::int64_t took = 0, behind_prefixes = 0, no_effect = 0;  ///< facts by outcome
  std::int64_t leaks = 0;                                     ///< facts that leak to a neighbour
  std::int64_t with_neighbours = 0;                           ///< facts that could
};

/// Where clean values bring the old object back, at the subject's last token, in the facts that were edited.
struct TracingSummary {
  struct Curve {
    std::vector<double> effect, bootstrap_low, bootstrap_high;  ///< [L], the latter two empty for less than two facts
    std::optional<Peak> peak;
  };

  std::int64_t facts = 0;
  std::int64_t window = 0;  ///< layers, of the MLP's
  Curve mlp, state;
};

struct EditSummaryResult {
  SummaryConfig config;
  std::vector<std::string> files;
  nlohmann::json model, run, edit;  ///< of the header
  std::vector<SelectionSummary> selections;
  std::int64_t records = 0;  ///< lines that stand for a fact
  std::map<std::string, std::int64_t> status, causes;
  std::int64_t torn_lines = 0;
  std::vector<std::string> warnings;
  std::vector<EditGroupSummary> layers;  ///< one for each edit of a fact
  /// Of several layers: where S is largest after the edit; `aie` is S.
  std::optional<Peak> best;
  std::vector<std::pair<std::string, std::vector<EditGroupSummary>>> relations;  ///< in order of name; if asked for
  std::optional<TracingSummary> tracing;                                         ///< of several layers
};

/// Averages over facts that were edited one by one, in one pass. Memory grows with relations (where asked for) times
/// layers, and by a bit a fact.
class EditSummary {
 public:
  explicit EditSummary(const SummaryConfig& config);
  ~EditSummary();

  /// Adds a header or a fact's line. Throws Error naming the line: a file without header, other settings than before, a
  /// fact that was there before, a field that is missing or wrong.
  void add(const SummaryLine& line);

  /// What was at the end of a file.
  void end_file(const SummaryReader& reader);

  /// Throws Error if there was no line.
  EditSummaryResult result();

 private:
  struct Groups;
  class Curves;

  void add_header(const SummaryLine& line);
  void add_edited(const SummaryLine& line);

  EditSummaryResult counts_;  // all but the averages
  PoissonWeights weights_;
  std::string header_, header_where_;
  bool has_header_ = false;  // the file at hand
  std::unique_ptr<Groups> overall_;
  std::map<std::string, std::unique_ptr<Groups>> relations_;
  std::unique_ptr<Curves> curves_;
  std::unique_ptr<Coverage> coverage_;
};

}  // namespace rometrace
