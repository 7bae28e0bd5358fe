data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  # Built from its parts, because the table may be created elsewhere.
  table_arn = join(":", [
    "arn",
    data.aws_partition.current.partition,
    "dynamodb",
    data.aws_region.current.id,
    data.aws_caller_identity.current.account_id,
    "table/${var.table_name}",
  ])
}

# The server reads the instances of its groups and writes the table; of several servers, only the leader does.
data "aws_iam_policy_document" "server" {
  statement {
    sid = "Table"
    # TransactWriteItems is not an IAM action: AWS authorises the updates in the transaction.
    actions = [
      "dynamodb:DescribeTable",
      "dynamodb:GetItem",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]
    resources = [local.table_arn]
  }

  statement {
    sid = "Instances"
    # None of these supports resource-level permissions: "*" is required. Patterns, tags and weights by size need no others.
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "ec2:DescribeInstances",
      "ec2:DescribeSpotInstanceRequests",
    ]
    resources = ["*"]
  }

  dynamic "statement" {
    for_each = var.create_table ? [] : [true]

    content {
      sid       = "CreateTable"
      actions   = ["dynamodb:CreateTable"]
      resources = [local.table_arn]
    }
  }
}

# Read access to the table only: a compromised load balancer cannot change anything.
data "aws_iam_policy_document" "client" {
  statement {
    sid = "Table"
    actions = [
      "dynamodb:GetItem",
      "dynamodb:Scan",
    ]
    resources = [local.table_arn]
  }
}

# For the commands for people: `hsdo status`, `why`, `drain` and `enable`.
data "aws_iam_policy_document" "operator" {
  statement {
    sid = "Table"
    actions = [
      "dynamodb:GetItem",
      "dynamodb:Scan",
      "dynamodb:UpdateItem",
    ]
    resources = [local.table_arn]
  }

  statement {
    sid = "Instances"
    # None of these supports resource-level permissions: "*" is required.
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "ec2:DescribeInstances",
      "ec2:DescribeSpotInstanceRequests",
    ]
    resources = ["*"]
  }
}

resource "aws_iam_policy" "server" {
  name        = "${var.name_prefix}-server"
  description = "hsdo --server: reads Auto Scaling groups and instances, reads and writes the table ${var.table_name}"
  policy      = data.aws_iam_policy_document.server.json
  tags        = var.tags
}

resource "aws_iam_policy" "client" {
  name        = "${var.name_prefix}-client"
  description = "hsdo --client: reads the table ${var.table_name}"
  policy      = data.aws_iam_policy_document.client.json
  tags        = var.tags
}

resource "aws_iam_policy" "operator" {
  name        = "${var.name_prefix}-operator"
  description = "hsdo status, why, drain and enable: reads the table ${var.table_name}, and writes orders to it"
  policy      = data.aws_iam_policy_document.operator.json
  tags        = var.tags
}
