#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "rometrace/study/cluster_means.hpp"
#include "rometrace/study/roles.hpp"
#include "rometrace/study/summary_reader.hpp"
#include "rometrace/study/summary_settings.hpp"

namespace rometrace {

struct SummaryConfig {
  bool by_relation = false;        ///< averages of each relation too
  std::int64_t replicates = 1000;  ///< B of the bootstrap; 0 for none
  std::uint32_t seed = 1;          ///< of the bootstrap
};

/// A mean over facts. What too few facts leave open is missing: the mean without a fact, the rest with less than two.
struct Estimate {
  std::int64_t facts = 0;
  std::optional<double> mean;
  std::optional<double> standard_error;
  std::optional<Bounds> normal;     ///< 95 %
  std::optional<Bounds> bootstrap;  ///< 95 %
};

/// Where a role's average effect is largest.
struct Peak {
  std::int64_t layer = 0;
  double aie = 0;
  std::optional<double> share;  ///< of the bootstrap's replicates that peak at this layer
  /// Lowest and highest peak of the replicates, 2.5 % of them left out at either end.
  std::optional<std::pair<std::int64_t, std::int64_t>> layers;
};

/// Averages of one role in one kind. Lists are [L]; empty where `Estimate` would miss a value. A role with several
/// tokens in a fact pools the tokens of all facts, as the reference does; errors are those of ClusterMeans.
struct RoleSummary {
  std::int64_t facts = 0;              ///< facts that have the role
  std::int64_t tokens = 0;             ///< its tokens in all of them
  std::vector<double> score;           ///< probability of the answer
  std::vector<double> aie;             ///< average indirect effect: score less the same fact's low_score
  std::vector<double> standard_error;  ///< of aie
  std::vector<double> normal_low, normal_high, bootstrap_low, bootstrap_high;
  std::optional<Peak> peak;
  Estimate largest_score;   ///< of a fact's largest score among the role's tokens and all layers
  Estimate largest_effect;  ///< the same less low_score
};

struct KindSummary {
  std::string kind;
  std::int64_t window = 0;
  Estimate largest_score;   ///< of the largest of a fact's grid
  Estimate largest_effect;  ///< the same less low_score
  std::array<RoleSummary, kRoles.size()> roles;
};

/// Averages over some facts. Probabilities are fractions.
struct GroupSummary {
  std::int64_t facts = 0;
  Estimate high_score, low_score, total_effect;  ///< total_effect: the ATE
  std::vector<KindSummary> kinds;                ///< state, mlp, attn; empty without a fact

  const KindSummary* find(std::string_view kind) const;  ///< null if there is none
};

/// A facts file's part in the lines.
struct SelectionSummary {
  nlohmann::ordered_json facts;  ///< the header's "facts": files, records, selection, selected
  std::int64_t selected = 0;
  std::int64_t lines = 0;  ///< found of those selected
};

struct SummaryResult {
  SummaryConfig config;
  std::vector<std::string> files;
  nlohmann::ordered_json model;  ///< null if no line has one
  nlohmann::ordered_json run;    ///< see SummarySettings::run()
  std::vector<SelectionSummary> selections;
  std::int64_t records = 0;  ///< lines that stand for a fact: traced + skipped + failed
  std::int64_t traced = 0, skipped = 0, failed = 0;
  std::map<std::string, std::int64_t> causes;  ///< of the skipped and failed
  std::int64_t torn_lines = 0;
  std::vector<std::string> warnings;
  GroupSummary overall;
  std::vector<std::pair<std::string, GroupSummary>> relations;  ///< in order of name; with by_relation
};

/// Averages over the facts of results files, in one pass. Memory grows with the relations (where asked for), and by a
/// bit a fact, not with the lines.
class Summary {
 public:
  /// Throws Error for a negative or a huge number of replicates.
  explicit Summary(const SummaryConfig& config);
  ~Summary();

  /// Adds a header or a trace. Throws Error naming the line: other settings than before, a record that was there
  /// before, grids that do not fit the prompt, a field that is missing; no memory for so many relations.
  void add(const SummaryLine& line);

  /// What was at the end of a file.
  void end_file(const SummaryReader& reader);

  /// Throws Error if there was no line.
  SummaryResult result();

 private:
  class Group;
  struct Study;

  void add_header(const SummaryLine& line);
  void add_record(const SummaryLine& line);
  void add_traced(const SummaryLine& line);
  void mark_record(const SummaryLine& line);
  Group& relation_of(const SummaryLine& line, std::size_t layers);

  SummaryConfig config_;
  SummarySettings settings_;
  PoissonWeights weights_;
  std::unique_ptr<Group> overall_;
  std::map<std::string, std::unique_ptr<Group>> relations_;
  std::map<std::string, std::unique_ptr<Study>> studies_;  // by facts files
  Study* study_ = nullptr;                                 // of the lines at hand; null for lines without a header
  SelectionSummary* selection_ = nullptr;
  SummaryResult counts_;  // all but the averages
  std::int64_t not_a_number_ = 0;
  std::string first_not_a_number_;
};

}  // namespace rometrace
