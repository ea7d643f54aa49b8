#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rometrace/summary/cluster_means.hpp"
#include "rometrace/summary/estimate.hpp"
#include "rometrace/summary/neuron_summary.hpp"
#include "rometrace/summary/roles.hpp"
#include "rometrace/summary/selection_summary.hpp"
#include "rometrace/summary/summary_reader.hpp"
#include "rometrace/summary/summary_settings.hpp"

namespace rometrace {

class Coverage;
class NeuronSets;

struct SummaryConfig {
  bool by_relation = false;        ///< averages of each relation too
  std::int64_t replicates = 1000;  ///< B of the bootstrap; 0 for none
  std::uint32_t seed = 1;          ///< of the bootstrap
};

/// Where a role's average effect is largest.
struct Peak {
  std::int64_t layer = 0;
  std::optional<std::int64_t> head;  ///< of the kind "head"
  double aie = 0;
  std::optional<double> share;  ///< of the bootstrap's replicates that peak at this layer (and head)
  /// Lowest and highest layer of the replicates' peaks, 2.5 % of them left out at either end.
  std::optional<std::pair<std::int64_t, std::int64_t>> layers;
};

/// Average effects of one role; the errors are those of `aie`. Lists are [L], of the kind "head" row-major [L, H];
/// empty without a fact. A role with several tokens in a fact pools the tokens of all facts, as the reference does;
/// errors are those of ClusterMeans.
struct EffectSummary : ErrorBars {
  std::int64_t facts = 0;   ///< facts that have the role in a row of their grid
  std::int64_t tokens = 0;  ///< its tokens in such rows of all of them
  /// Average indirect effect: score less the same fact's low_score; in noising, high_score less score. Of a gap: what
  /// severing takes off that effect.
  std::vector<double> aie;
  std::optional<Peak> peak;
};

/// Averages of one role in one kind.
struct RoleSummary : EffectSummary {
  std::vector<double> score;  ///< probability of the answer
  Estimate largest_score;     ///< of a fact's largest score among the role's tokens and all layers
  Estimate largest_effect;    ///< the same of the effect
};

struct KindSummary {
  std::string kind;
  std::int64_t window = 0;
  std::int64_t heads = 0;   ///< H of the kind "head"; 0 for the others
  Estimate largest_score;   ///< of the largest of a fact's grid
  Estimate largest_effect;  ///< the same of the effect
  std::array<RoleSummary, kRoles.size()> roles;
};

/// What severing a path takes away (section 2 of the paper): in the facts that have both, the effect of the state less
/// that of the same state with the outputs of the MLP, or the attention, frozen at its token.
struct GapSummary {
  std::string severed;  ///< "mlp", "attn"
  std::array<EffectSummary, kRoles.size()> roles;
};

/// In facts of which both directions were traced, the effect when noising less that when denoising (arXiv 2606.27510).
struct InteractionSummary {
  std::string kind;
  std::int64_t window = 0;
  std::int64_t heads = 0;  ///< H of the kind "head"; 0 for the others
  std::array<EffectSummary, kRoles.size()> roles;  ///< without peaks
};

/// Groups of positions whose attention is cut (arXiv 2304.14767).
inline constexpr std::array<std::string_view, 4> kKnockoutGroups = {"subject", "before", "after", "last"};

struct KnockoutSummary {
  struct Group : ErrorBars {
    std::int64_t facts = 0;               ///< that have a position in the group, and a high_score above 0
    std::vector<double> relative_change;  ///< [L] mean of (score - high_score) / high_score; empty without a fact
  };

  std::int64_t window = 0;                           ///< layers
  std::array<Group, kKnockoutGroups.size()> groups;  ///< in their order
};

/// Averages of what lines read beside the probability of their answers: a measure, or another target's probability, by
/// its place among them. A fact for which one of its values is no number is left out of all.
struct ReadingSummary {
  struct Role : ErrorBars {      ///< the errors are those of `effect`
    std::int64_t facts = 0;      ///< facts that have the role in a row of their grid
    std::int64_t tokens = 0;     ///< its tokens in such rows of all of them
    std::vector<double> value;   ///< [L], of the kind "head" row-major [L, H]
    std::vector<double> effect;  ///< value less the same fact's low; in noising, high less value
  };
  struct Kind {
    std::string kind;
    std::int64_t window = 0;
    std::int64_t heads = 0;  ///< H of the kind "head"; 0 for the others
    std::array<Role, kRoles.size()> roles;
  };

  std::string measure;                ///< empty: another target
  std::optional<std::string> target;  ///< the other target's text, where it is that of all facts
  std::optional<std::string> of;      ///< what "normalised" is of
  std::int64_t facts = 0;
  std::int64_t not_numbers = 0;  ///< facts left out
  Estimate high, low, total_effect;
  std::vector<Kind> kinds;
};

/// Averages over some facts. Probabilities are fractions.
struct GroupSummary {
  std::int64_t facts = 0;
  Estimate high_score, low_score, total_effect;  ///< total_effect: the ATE
  /// state, mlp, attn, head, state_mlp_severed, state_attn_severed; empty without a fact.
  std::vector<KindSummary> kinds;
  std::vector<GapSummary> gaps;             ///< mlp, attn, as far as they were severed
  /// The kinds when noising, where both directions were traced, and their interactions.
  std::vector<KindSummary> noising;
  std::vector<InteractionSummary> interactions;
  std::optional<KnockoutSummary> knockout;  ///< where there was one
  std::optional<NeuronSummary> neurons;     ///< where there were any
  std::vector<ReadingSummary> measures, other_targets;

  const KindSummary* find(std::string_view kind) const;  ///< null if there is none
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
/// bit a fact, not with the lines; with neurons by those that are told of, and a byte a replicate, for each fact.
class Summary {
 public:
  /// Throws Error for a negative or a huge number of replicates.
  explicit Summary(const SummaryConfig& config);
  ~Summary();

  /// Adds a header or a trace. Throws Error naming the line: other settings than before, a record that was there
  /// before, grids or a knockout that do not fit prompt and model, a field that is missing; no memory for so many
  /// relations.
  void add(const SummaryLine& line);

  /// What was at the end of a file.
  void end_file(const SummaryReader& reader);

  /// Throws Error if there was no line.
  SummaryResult result();

 private:
  class Group;

  void add_record(const SummaryLine& line);
  void add_traced(const SummaryLine& line);
  Group& relation_of(const SummaryLine& line, std::size_t cells);

  SummaryConfig config_;
  SummarySettings settings_;
  PoissonWeights weights_;
  std::unique_ptr<Group> overall_;
  std::map<std::string, std::unique_ptr<Group>> relations_;
  std::unique_ptr<Coverage> coverage_;
  std::unique_ptr<NeuronSets> neurons_;
  SummaryResult counts_;  // all but the averages
  std::int64_t not_a_number_ = 0;
  std::string first_not_a_number_;
};

}  // namespace rometrace
