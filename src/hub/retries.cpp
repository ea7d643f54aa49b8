#include "hub/retries.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace rometrace {
namespace {

constexpr int kMostFailures = 6;
constexpr int kMostWithoutContact = 3;
constexpr double kLongestPause = 60;        // seconds, of our own
constexpr double kLongestRetryAfter = 600;  // seconds, on the server's word

void wait(double seconds, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::unique_lock lock(mutex);
  changed.wait_for(lock, stop, std::chrono::duration<double>(seconds), [] { return false; });
  if (stop.stop_requested()) throw Interrupted();
}

std::string shown_seconds(double seconds) {
  return seconds < 1 ? "less than a second" : std::to_string(std::lround(seconds)) + " s";
}

}  // namespace

Retries::Retries(double first_seconds, Note note, std::stop_token stop)
    : first_seconds_(first_seconds), note_(std::move(note)), stop_(std::move(stop)), random_(std::random_device{}()) {}

double Retries::next_pause(const TransientFailure& failure) {
  const double longest = std::min(kLongestPause, first_seconds_ * std::exp2(failures_ - 1));
  const double own = std::uniform_real_distribution<double>(longest / 2, longest)(random_);
  return std::max(own, failure.retry_after().value_or(0));
}

void Retries::wait_after(const TransientFailure& failure) {
  ++failures_;
  reached_ = reached_ || failure.contact() == TransientFailure::Contact::kMade;
  const std::string what = failure.what();
  if (failures_ >= (reached_ ? kMostFailures : kMostWithoutContact)) {
    const std::string tried = what + " (tried " + std::to_string(failures_) + " times); ";
    throw GaveUp(tried + (reached_ ? "run it again later: it goes on where it stopped"
                                   : "check the network, the proxy (https_proxy) and HF_ENDPOINT, or copy the model's "
                                     "folder here and give that"));
  }
  const double pause = next_pause(failure);
  if (pause > kLongestRetryAfter) {
    throw GaveUp(what + "; the server asks to wait for " + std::to_string(std::lround(std::ceil(pause / 60))) +
                 " minutes; run it again then: it goes on where it stopped");
  }
  if (note_) note_(what + "; trying again in " + shown_seconds(pause));
  wait(pause, stop_);
}

}  // namespace rometrace
