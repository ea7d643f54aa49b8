#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/facts/facts.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/replicas.hpp"
#include "rometrace/text/tokenizer.hpp"
#include "rometrace/trace/trace.hpp"

// Probing: does the model say a fact's object, and does it know the fact? Nothing is corrupted; each wording of the
// fact is run once and read at its last position.

namespace rometrace {

/// When a fact counts as known: when at least `wordings` of its wordings, held out or not, bring its object out.
struct KnownRule {
  enum class Measure {
    kSaid,    ///< the object is the top answer
    kChoice,  ///< the object comes first among the objects of its relation
    kRecall,  ///< the object is among the `rank` most probable tokens ("recall at R")
  };
  Measure measure = Measure::kSaid;
  std::int64_t wordings = 2;  ///< K, at least 1
  std::int64_t rank = 1;      ///< R, at least 1; for kRecall
};

/// Reads "said:K", "choice:K" (without ":K", K is 2), "recall:R" (K is 1) or "recall:R:K". Throws Error for all else.
KnownRule parse_known_rule(std::string_view text);

/// The rule as parse_known_rule() reads it, in full: "said:2", "choice:2", "recall:10:1".
std::string to_string(const KnownRule& rule);

/// What the rule asks for, in words: "the top answer in at least 2 wordings".
std::string describe(const KnownRule& rule);

/// The tokens that say `object` after a prompt: those of a space and the object, white space around it left out. The
/// first one stands for the object. Where a tokeniser puts a space of its own before every text (SentencePiece), a
/// token that only doubles it is left out. Empty for an object of white space. Throws Error if it is not UTF-8.
std::vector<std::int32_t> object_token_ids(const Tokenizer& tokenizer, std::string_view object);

/// The objects that a relation is known to have in the facts files: what a fact's object is chosen among. An object
/// stands as its first token, so objects that begin alike are one candidate.
class ObjectChoices {
 public:
  /// `tokenizer` must outlive the object.
  explicit ObjectChoices(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  /// Takes in the fact's object. Add every fact of the files, not only those that are probed: a sample or a shard must
  /// give the same ranks as the whole. A fact without an object, or with one that has no tokens, adds nothing.
  void add(const Fact& fact);

  /// First tokens, and the objects (without white space around them) that each stands for.
  using Candidates = std::map<std::int32_t, std::set<std::string>>;

  /// Those of the fact's relation; of all facts added, where it has no relation. Empty if nothing was added.
  const Candidates& of(const Fact& fact) const;

 private:
  const Tokenizer* tokenizer_;
  std::map<std::string, Candidates> by_relation_;
  Candidates all_;
  Candidates none_;
};

/// What the model does with one wording.
struct ProbedWording {
  double probability = 0;         ///< of the object's token
  std::int64_t rank = 0;          ///< of that token in the vocabulary; 1: the most probable
  std::int64_t choice_rank = 0;   ///< of that token among the candidates; 1: first
  bool said = false;              ///< see ProbeResult
  std::int32_t answer_id = 0;     ///< the most probable token
  std::string answer;             ///< its bytes
  double answer_probability = 0;  ///< its probability
};

/// What probing one fact gave. A rank counts the tokens that are more probable, and among those equally probable the
/// ones with a smaller id; the top answer is the token of rank 1.
///
/// An object is *said* in a wording if its token is the top answer or if the top answer's text, white space around it
/// left out, is the object (the reference's comparison). Of an object of several tokens only the first is looked at.
struct ProbeResult {
  enum class Status { kProbed, kSkipped, kFailed };

  Status status = Status::kProbed;
  std::string cause;   ///< unless probed: "no_object" (skipped); "record", "prompt" or "trace" (failed)
  std::string reason;  ///< unless probed: in words, one line

  std::int64_t object_tokens = 0;       ///< tokens of the object; 0 if it has none
  std::int32_t object_id = 0;           ///< the first of them
  std::string object_token;             ///< its bytes
  std::int64_t candidates = 0;          ///< distinct first tokens that choice_rank ranks among, its own included
  std::int64_t alike = 0;               ///< other objects among them that begin with the same token
  std::vector<ProbedWording> wordings;  ///< one a wording, in the fact's order; empty unless probed

  bool said() const;               ///< said in the fact's own prompt, the first wording
  std::int64_t said_in() const;    ///< wordings in which it is said
  std::int64_t choice_in() const;  ///< wordings in which it is first among the candidates
  std::int64_t best_rank() const;  ///< the smallest rank; 0 unless probed
};

/// Wordings in which the fact fulfils the rule's measure.
std::int64_t wordings_that_count(const ProbeResult& result, const KnownRule& rule);

/// Whether a probed fact has at least as many wordings as the rule asks for; with fewer it can't be known.
bool has_enough_wordings(const ProbeResult& result, const KnownRule& rule);

/// Whether the fact was probed and is known by the rule.
bool is_known(const ProbeResult& result, const KnownRule& rule);

/// For a fact that is not known: why not, in words. The reason that goes with the cause "not_known".
std::string reason_not_known(const ProbeResult& result, const KnownRule& rule);

struct ProbeOptions {
  SpecialTokens special = SpecialTokens::kAsText;  ///< in prompts
  std::int64_t batch_tokens = 2048;                ///< tokens run together at most (one prompt may be more)
  std::int64_t chunk_facts = 256;                  ///< facts prepared and handed on together, at least 1
};

/// Is given the results one by one, in the order of the facts; `index` counts from 0.
using ProbeSink = std::function<void(std::size_t index, ProbeResult&& result)>;

/// How many of the facts probe_facts() should be given together: 64, and more where their wordings are few for the
/// model's products and done in some seconds, as results wait for the last one. It depends on the model and the facts'
/// wordings alone.
std::int64_t probe_chunk(const Decoder& model, std::span<const Fact* const> facts);

/// Probes the facts, `options.chunk_facts` at a time; the wordings of a chunk that have the same number of tokens share
/// forward passes. A fact's result does not depend on the others but for rounding. What is wrong with a fact (no
/// object, a wording that can't be tokenised or is too long, a probability that is not a number) is in its result. Of
/// `control`, progress (in wordings) and stop count. Memory does not grow with the number of facts.
/// Throws Interrupted when asked to stop; the facts of the chunk at hand are then lost.
///
/// Several models share the batches of as many chunks as there are of them; which wordings share a forward pass does
/// not depend on their number. `control.progress` is then called by one thread at a time, not always the same.
void probe_facts(const Replicas& models, const Tokenizer& tokenizer, const ObjectChoices& choices,
                 std::span<const Fact* const> facts, const ProbeOptions& options, const RunControl& control,
                 const ProbeSink& sink);

/// The same on one model.
void probe_facts(const Decoder& model, const Tokenizer& tokenizer, const ObjectChoices& choices,
                 std::span<const Fact* const> facts, const ProbeOptions& options, const RunControl& control,
                 const ProbeSink& sink);

/// The same, with all results at once.
std::vector<ProbeResult> probe_facts(const Decoder& model, const Tokenizer& tokenizer, const ObjectChoices& choices,
                                     std::span<const Fact* const> facts, const ProbeOptions& options = {},
                                     const RunControl& control = {});

}  // namespace rometrace
