#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

#include "rometrace/facts/facts.hpp"
#include "rometrace/text/counter_prompt.hpp"
#include "rometrace/text/tokenizer.hpp"

namespace rometrace {

/// A fact whose subject takes the place of another's.
struct Swap {
  const Fact* partner = nullptr;
  CounterPrompt counter;
};

/// One line: why a fact has no partner.
struct NoSwap {
  std::string reason;
};

struct SwapOptions {
  std::uint32_t seed = 1;
  SpecialTokens special_tokens = SpecialTokens::kAsText;
};

/// Draws for each fact a partner among all facts that were read: one of the same relation, with another subject and
/// another object, whose subject in the fact's prompt makes a counter prompt (see counter_prompt_of_subject).
///
/// Which one depends on the seed, the fact's record number and the facts alone. The M candidates are those with another
/// object whose subject has as many tokens in that place, in byte order of their objects and then in file order. They
/// are tried in the order of a Fisher-Yates shuffle, step i (from 0) swapping places i and i + (u * (M - i) >> 32),
/// with u the next 32 bits of std::mt19937 seeded by std::seed_seq{seed, low 32 bits of the record number, high 32
/// bits}.
class SwapPartners {
 public:
  /// Facts and tokeniser have to outlive the object.
  SwapPartners(const Facts& facts, const Tokenizer& tokenizer, const SwapOptions& options = {});

  /// `fact` is one of the facts. May be called from several threads.
  std::variant<Swap, NoSwap> partner_of(const Fact& fact) const;

 private:
  /// Facts whose subjects have the same number of tokens in the same surroundings.
  struct Candidates {
    std::vector<const Fact*> facts;  // in the order of their objects
    bool one_subject = true;         // all have the same
  };
  using ByTokens = std::map<std::size_t, Candidates>;
  /// A relation and what stands before and behind the subject and decides about its tokens.
  using Place = std::tuple<std::string_view, std::string, std::string>;

  std::size_t tokens_of(const Place& place, const std::string& subject) const;
  const ByTokens& by_tokens(const Place& place) const;

  const Tokenizer& tokenizer_;
  SwapOptions options_;
  std::map<std::string_view, std::vector<const Fact*>> by_relation_;  // with an object, in file order
  mutable std::mutex mutex_;
  mutable std::map<Place, ByTokens> places_;  // filled when they are first asked for
};

}  // namespace rometrace
