#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rometrace/summary/model_setting.hpp"
#include "rometrace/summary/selection_summary.hpp"
#include "rometrace/text/subject.hpp"

namespace rometrace {

class Coverage;

/// An interval of shares, in [0, 1].
struct Interval {
  double low = 0;
  double high = 1;
};

/// Wilson's 95 % interval of a share `p` of `n` independent cases (Wilson 1927); `n` need not be whole. Without cases:
/// from 0 to 1.
Interval wilson_interval(double p, double n);

/// A share over cases that come in clusters: the wordings of a fact are no independent cases.
class ClusteredShare {
 public:
  /// Adds the cases of one fact, of which `hits` count. No cases: nothing is added.
  void add(std::int64_t hits, std::int64_t cases);

  std::int64_t count() const { return hits_; }   ///< cases that count
  std::int64_t cases() const { return cases_; }  ///< n
  std::int64_t facts() const { return facts_; }  ///< facts that have cases
  double share() const;                          ///< count / n; NaN without cases

  /// The number of independent cases that would leave the share as uncertain as it is: p (1 - p) / v with the variance
  /// v of a ratio over facts, sum (hits - p cases)^2 / n^2; not more than the cases. Where each fact has one case, n.
  /// Where all cases agree v says nothing, and the facts count.
  double effective_cases() const;

  /// Wilson's interval with effective_cases().
  Interval interval() const { return wilson_interval(share(), effective_cases()); }

 private:
  std::int64_t hits_ = 0, cases_ = 0, facts_ = 0;
  std::int64_t hits_squared_ = 0, hits_times_cases_ = 0, cases_squared_ = 0;  // summed over facts
};

/// Knowing and saying over some facts: a case is a fact in its own wording, or each wording of it that the group is
/// about.
struct ProbeGroup {
  std::int64_t facts = 0;
  std::int64_t too_few_wordings = 0;  ///< facts that the rule can't call known; they are in `said` alone
  double probability = 0;             ///< of the object, summed over cases
  ClusteredShare said;
  ClusteredShare known;
  ClusteredShare known_not_said;
  ClusteredShare said_not_known;
  ClusteredShare not_said_of_known;  ///< known_not_said with the known cases as its n

  double mean_probability() const { return probability / static_cast<double>(said.cases()); }  ///< NaN without cases

  /// One case of a fact.
  struct Case {
    bool said = false;
    double probability = 0;
  };
  /// Adds the cases of one fact (none: nothing); `known` is nothing where the rule can't tell.
  void add(const std::vector<Case>& cases, std::optional<bool> known);
};

/// A relation, or all facts.
struct ProbeRelation {
  ProbeGroup facts;     ///< each in its own prompt, the first wording
  ProbeGroup other;     ///< all wordings that are not held out
  ProbeGroup held_out;  ///< all held-out wordings
};

/// One wording of a relation.
struct ProbeWordingGroup {
  std::string text;  ///< the subject is "{}" where it stood in the prompt first
  bool held_out = false;
  ProbeGroup group;
};

/// Adds up the lines of probe results. Memory grows with relations and, up to `kMostWordings` each, their wordings,
/// and by a bit a fact.
class ProbeSummary {
 public:
  ProbeSummary();
  ~ProbeSummary();
  ProbeSummary(ProbeSummary&&) noexcept;

  static constexpr std::size_t kMostWordings = 1000;

  /// Takes in one line: a record of schema "rometrace/probe/1" or the header of a results file of "command": "probe".
  /// `where` (file and line) opens the messages. Throws Error, and adds nothing, for a line of another kind, with
  /// fields that are missing or wrong, or that was made with another model, dtype, TF32, rule of knowing or handling of
  /// special tokens than a line before it, or of a fact that was in a line before. The model's name, device and threads
  /// may differ.
  void add(const nlohmann::json& line, std::string_view where);

  /// The end of the file `label`, whose last line was not whole if it is `torn`.
  void end_file(const std::string& label, bool torn);

  std::vector<SelectionSummary> selections() const;
  std::vector<std::string> warnings() const;  ///< what the reader should know, one line each
  std::int64_t torn_lines() const { return torn_lines_; }

  std::int64_t records() const { return records_; }
  /// Records by status: "probed", "skipped", "failed".
  const std::map<std::string, std::int64_t>& status() const { return status_; }
  const std::map<std::string, std::int64_t>& causes() const { return causes_; }

  /// The model of the first line that has one; null if none has.
  const nlohmann::ordered_json& model() const { return model_.model(); }
  /// A setting that must agree, by its path in a line ("run.dtype", "known_by.rule"); null if no line has it.
  nlohmann::json setting(std::string_view path) const;

  const ProbeRelation& overall() const { return overall_; }

  struct Relation : ProbeRelation {
    std::vector<ProbeWordingGroup> wordings;  ///< in the order in which they were met
    std::int64_t pooled = 0;  ///< cases of wordings beyond kMostWordings, which have no group of their own
    std::map<std::pair<bool, std::string>, std::size_t> index;  ///< (held out, text) -> place in `wordings`
  };
  /// By name; facts without relation are under kNoRelation.
  const std::map<std::string, Relation>& relations() const { return relations_; }
  static constexpr const char* kNoRelation = "(none)";

 private:
  struct Setting {
    nlohmann::json value;
    std::string where;
  };
  struct Line;

  void refuse_other_settings(const nlohmann::json& line, const std::string& where) const;
  void keep_settings(const nlohmann::json& line, const std::string& where);
  void add_fact(const Line& line);

  std::int64_t records_ = 0, torn_lines_ = 0;
  std::unique_ptr<Coverage> coverage_;
  std::vector<std::string> warnings_;  // of files
  std::map<std::string, std::int64_t> status_, causes_;
  std::map<std::string, Setting, std::less<>> settings_;
  ModelSetting model_;
  ProbeRelation overall_;
  std::map<std::string, Relation> relations_;
};

/// `prompt` with "{}" in the place of `subject`: at `place` or, where that is not known or is not the subject's, at its
/// first occurrence; the prompt where it has none.
std::string wording_of(std::string_view prompt, std::string_view subject, std::optional<ByteRange> place = {});

}  // namespace rometrace
