"""The payment gateway over HTTP, for operators who bill with anything: `docs/payments.md` is its contract.

signing    what both sides sign, and how keys are changed
wire       one request and its answer, with bounds
told       what a gateway says: answers and reports
client     `service.agreement.payments.PaymentGateway` on top of these
"""
